# SPDX-License-Identifier: Apache-2.0
"""Export a checkpoint for inference, and compare it with the network. The last line is one JSON object.

python export.py --checkpoint_path runs/RUN --file_format MINDIR
python export.py --checkpoint_path runs/RUN/checkpoints/last.ckpt --file_format MINDIR --file_name FOLDER
python export.py --checkpoint_path runs/RUN --export_batch_size 1,8,32 --input uint8
python export.py --checkpoint_path runs/RUN --file_format ONNX
python export.py --checkpoint_path runs/RUN --file_format ONNX --quantise int8 --calibration photos/
"""

from src.common.cli import checkpoint_parser, run
from src.deploy.export_flags import add_export_flags, export_choices, find_calibration
from src.key_help import key_help
from src.model_utils.modelarts import on_modelarts


def main(arguments):
    flags = checkpoint_parser(__doc__, keys=key_help)
    add_export_flags(flags)
    own, rest = flags.parse_known_args(arguments)
    choices = export_choices(own)

    from src.common.files import to_json
    from src.deploy.export import export_model, output_folder
    from src.deploy.render import render_export
    from src.trained import open_from_flags, some_images

    trained = open_from_flags(own, rest, float32=True)
    card = trained.card.model_copy(update={"input_type": own.input})
    what = {"card": card, "calibration": find_calibration(own, card.class_names), **choices}
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
