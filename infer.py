"""Classify images, or all images in folders, of any size and mode; with labels, count how many are right.

    python infer.py --model_path runs/RUN/resnet9_mindir cat.jpg photos/
    python infer.py --model_path runs/RUN/resnet9_mindir val/ --labels folders --summary
    python infer.py --model_path runs/RUN/checkpoints/best.ckpt cat.jpg --json
    python infer.py --model_path official.npz --config_path configs/MODEL/RECIPE.yaml --class_names FILE a.jpg

The answers come in the order of the arguments. An image or folder that cannot be read is named and skipped;
the exit code is then 2.
"""

from src.common.cli import add_weights_flags, parser, run

HELP = {
    "model_path": "an export's folder, a .mindir in it, an .onnx or .packed, a run's folder, or any weights",
    "backend": "of .mindir mindspore, or lite, auto where it is installed; others have one each",
    "device_target": "auto, Ascend, GPU or CPU (default auto)",
    "max_image_pixels": "larger images are skipped, as unsafe (default 178,956,970)",
    "labels": 'a file of lines "IMAGE,CLASS"; folders: FOLDER/CLASS/*; auto: as folders if they are classes',
    "workers": "threads that read images; 0: one for each core that may be used, at most 8 (default 0)",
    "batch_size": "images a call; of a .mindir, one of its sizes (default its largest, otherwise 32)",
    "threads": "that compute, for .onnx and .packed; 0: one for each core that may be used (default 0)",
}


def main(arguments):
    flags = parser(__doc__)
    flags.add_argument("images", nargs="+", metavar="IMAGE_OR_DIR", help="or CIFAR's folder")
    flags.add_argument("--model_path", required=True, help=HELP["model_path"])
    flags.add_argument("--backend", default="auto", help=HELP["backend"])
    flags.add_argument("--device_target", default="auto", help=HELP["device_target"])
    flags.add_argument("--batch_size", type=int, help=HELP["batch_size"])
    flags.add_argument("--threads", type=int, help=HELP["threads"])
    flags.add_argument("--workers", type=int, default=0, help=HELP["workers"])
    flags.add_argument("--max_image_pixels", type=int, help=HELP["max_image_pixels"])
    flags.add_argument("--labels", help=HELP["labels"])
    flags.add_argument("--top", type=int, default=5, help="classes an image (default 5)")
    flags.add_argument("--summary", action="store_true", help="print the figures, not each image")
    flags.add_argument("--json", action="store_true", help="print one JSON object")
    add_weights_flags(flags)
    own, rest = flags.parse_known_args(arguments)
    from src.checkpoint.formats import is_weights
    from src.deploy.exported import is_export

    if is_weights(own.model_path) and not is_export(own.model_path):
        from src.trained import checkpoint_predictor as open_model
    else:  # which may run without MindSpore
        from src.deploy.backends import exported_predictor as open_model

        if rest:
            flags.error(f"unrecognized arguments of an export: {' '.join(rest)}; its card has all settings")
    from src.deploy.door import classify_from_flags

    classify_from_flags(open_model(own, rest), own)


if __name__ == "__main__":
    run(main)
