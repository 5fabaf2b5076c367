"""Export a checkpoint for inference, and compare the file with the network. The last line is one JSON object.

python export.py --checkpoint_path runs/RUN --file_format MINDIR
python export.py --checkpoint_path runs/RUN/checkpoints/last.ckpt --file_format MINDIR --file_name OUT
python export.py --checkpoint_path runs/RUN --export_batch_size 1,8,32 --input uint8
"""

from dataclasses import replace

from src.common.cli import checkpoint_parser, run
from src.common.errors import UserError
from src.deploy.formats import find_format, names_in_words
from src.key_help import key_help
from src.model_utils.modelarts import on_modelarts


def main(arguments):
    flags = checkpoint_parser(__doc__, keys=key_help)
    flags.add_argument("--file_format", default="MINDIR", help=f"{names_in_words()} (default MINDIR)")
    flags.add_argument("--file_name", metavar="OUT", help="file or folder/ (default: in the run's folder)")
    flags.add_argument(
        "--export_batch_size", default="1", metavar="N[,N...]",
        help="images a call (default 1); of several sizes each is a file of its own, OUT_bN",
    )  # fmt: skip
    flags.add_argument(
        "--input", default="float32", choices=("float32", "uint8"),
        help="float32: normalised NCHW; uint8: NHWC pixels, normalised in the file (default float32)",
    )  # fmt: skip
    own, rest = flags.parse_known_args(arguments)
    sizes = own.export_batch_size.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise UserError(
            f"export_batch_size: {own.export_batch_size} given, allowed: whole numbers above 0, as 1,8,32"
        )
    kind = find_format(own.file_format)

    from src.common.files import to_json
    from src.deploy.export import export_model, output_path
    from src.deploy.render import render_export
    from src.trained import open_from_flags, some_images

    trained = open_from_flags(own, rest)
    report = export_model(
        trained.network,
        output_path(own.file_name, checkpoint=trained.checkpoint.path, model=trained.card.model),
        file_format=kind.name,
        card=replace(trained.card, input_type=own.input),
        batch_sizes=[int(size) for size in sizes],
        real_images=some_images(trained.recipe),
    )
    print(render_export(report, file_format=kind.name))
    print(to_json(report))
    return 0


if __name__ == "__main__":
    run(main, around=on_modelarts())
