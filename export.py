"""Export a checkpoint for inference, and compare it with the network. The last line is one JSON object.

python export.py --checkpoint_path runs/RUN --file_format MINDIR
python export.py --checkpoint_path runs/RUN/checkpoints/last.ckpt --file_format MINDIR --file_name FOLDER
python export.py --checkpoint_path runs/RUN --export_batch_size 1,8,32 --input uint8
"""

from src.common.cli import checkpoint_parser, run
from src.common.errors import UserError
from src.deploy.formats import find_format, names_in_words
from src.key_help import key_help
from src.model_utils.modelarts import on_modelarts

HELP = {
    "file_name": "the export's folder, or FOLDER/ to have it in (default: in the run's folder)",
    "export_batch_size": "images a call (default 1); of several sizes each is a file of its own, model_bN",
    "input": "float32: normalised NCHW; uint8: NHWC pixels, normalised in the file (default float32)",
    "accept_difference": "write a model whose answers differ too much from the network's, too",
}


def main(arguments):
    flags = checkpoint_parser(__doc__, keys=key_help)
    flags.add_argument("--file_format", default="MINDIR", help=f"{names_in_words()} (default MINDIR)")
    flags.add_argument("--file_name", metavar="FOLDER", help=HELP["file_name"])
    flags.add_argument("--export_batch_size", default="1", metavar="N[,N...]", help=HELP["export_batch_size"])
    flags.add_argument("--input", default="float32", choices=("float32", "uint8"), help=HELP["input"])
    flags.add_argument("--accept_difference", action="store_true", help=HELP["accept_difference"])
    own, rest = flags.parse_known_args(arguments)
    sizes = own.export_batch_size.split(",")
    if not all(size.strip().isdecimal() and int(size) > 0 for size in sizes):
        raise UserError(
            f"export_batch_size: {own.export_batch_size} given, allowed: whole numbers above 0, as 1,8,32"
        )
    kind = find_format(own.file_format)

    from src.common.files import to_json
    from src.deploy.export import export_model, output_folder
    from src.deploy.render import render_export
    from src.trained import open_from_flags, some_images

    trained = open_from_flags(own, rest, float32=True)
    what = {
        "card": trained.card.model_copy(update={"input_type": own.input}),
        "file_format": kind.name,
        "batch_sizes": sorted(set(map(int, sizes))),
    }
    folder = output_folder(own.file_name, checkpoint=trained.checkpoint.path, **what)
    report = export_model(
        trained.network, folder, **what,
        to_float16=trained.to_float16,
        real_images=some_images(trained),
        accept_difference=own.accept_difference,
    )  # fmt: skip
    print(render_export(report), to_json(report), sep="\n")


if __name__ == "__main__":
    run(main, around=on_modelarts())
