"""Train a model, or continue a run.

python train.py --config_path configs/resnet9/quickstart.yaml --data_path data
python train.py --resume runs/quickstart-20260101-120000
"""

import sys
from pathlib import Path

from src.common.cli import parser, run


def main(arguments):
    flags = parser(__doc__, add_help=False)
    flags.add_argument("-h", "--help", action="store_true", help="show this, and every key of the model")
    flags.add_argument("--config_path", help="a recipe of configs/")
    flags.add_argument("--resume", metavar="RUN_DIR", help="continue this run exactly where it stopped")
    own, rest = flags.parse_known_args(arguments)

    from src.model_utils.config import describe, load_config, parse_overrides
    from src.training import session
    from src.training.signals import Interrupted
    from src.zoo import config_class_of, create_recipe

    path = Path(own.resume) / "config.yaml" if own.resume else own.config_path
    overrides = parse_overrides(rest)
    if own.resume:
        session.check_changes(overrides)
    config = load_config(overrides, config_class_of=config_class_of, config_path=path)
    if own.help:
        print(f"{flags.format_help()}\n{describe(config)}")
        return 0
    try:
        if own.resume:
            session.resume(config, create_recipe, run_dir=Path(own.resume))
        else:
            name = Path(path).stem if path else config.model
            session.start(config, create_recipe, run_dir=session.new_run_dir(config, recipe_name=name))
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    run(main, cloud=True)
