"""Classify images, or all images in folders, of any size and mode.

    python infer.py --model_path runs/RUN/resnet9.mindir cat.jpg photos/
    python infer.py --model_path runs/RUN/checkpoints/best.ckpt cat.jpg --json

An image that cannot be read is named and skipped; the exit code is then 2.
"""

from src.model_utils.door import parser, run


def main(arguments):
    flags = parser(__doc__)
    flags.add_argument("images", nargs="+", metavar="IMAGE_OR_DIR")
    flags.add_argument("--model_path", required=True, help="a .mindir with its .json beside it, or a .ckpt")
    flags.add_argument("--json", action="store_true", help="print one JSON object")
    flags.add_argument("--top", type=int, default=5, help="classes an image (default 5)")
    flags.add_argument("--device_target", default="auto", help="auto, Ascend, GPU or CPU (default auto)")
    own = flags.parse_args(arguments)

    from src.deploy.images import find_images
    from src.deploy.predict import classify, render_json, render_text
    from src.model_utils.errors import UserError
    from src.trained import open_predictor

    paths = find_images(own.images)
    predictor = open_predictor(own.model_path, device_target=own.device_target)
    results, skipped = classify(predictor, predictor.card, paths, top=own.top)
    print((render_json if own.json else render_text)(results, skipped))
    if skipped:
        raise UserError(f"{len(skipped)} of {len(paths)} images could not be read and were skipped")


if __name__ == "__main__":
    run(main)
