# SPDX-License-Identifier: Apache-2.0
"""Classify images, or all images in folders, of any size and mode; with labels, count how many are right.

    python infer.py --model_path runs/RUN/resnet9_mindir cat.jpg photos/
    python infer.py --model_path runs/RUN/resnet9_mindir val/ --labels folders --summary
    python infer.py --model_path runs/RUN/resnet9_mindir photos/ --output answers.json
    python infer.py --model_path runs/RUN/checkpoints/best.ckpt cat.jpg --json
    python infer.py --model_path official.npz --config_path configs/MODEL/RECIPE.yaml --class_names FILE a.jpg

The answers come in the order of the arguments. An image or folder that cannot be read is named and skipped;
the exit code is then 2.
"""

from src.common.cli import parser, run
from src.deploy.infer_flags import add_infer_flags


def main(arguments):
    flags = parser(__doc__)
    add_infer_flags(flags)
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
