# SPDX-License-Identifier: Apache-2.0
"""Train a model, or continue a run.

python train.py --config_path configs/resnet9/quickstart.yaml --data_path data
python train.py --resume runs/quickstart-20260101-120000
python train.py --resume runs/quickstart-20260101-120000 --epochs 4     # longer, if it has ended or not
"""

import contextlib
import sys
from pathlib import Path

from src.common.cli import flag_names, parser, run
from src.key_help import key_help
from src.model_utils.modelarts import on_modelarts

FLAGS = parser(__doc__, keys=key_help)
FLAGS.add_argument("--config_path", help="a recipe of configs/")
FLAGS.add_argument("--resume", metavar="RUN_DIR", help="continue this run exactly where it stopped")


def settings(arguments):
    """The config that a command line means; of a run that goes on, its own, once its folder is there."""
    from src.model_utils.config import load_config, parse_overrides
    from src.optim.keys import with_one_length
    from src.zoo import config_class_of

    own, rest = FLAGS.parse_known_args(arguments)
    path = Path(own.resume) / "config.yaml" if own.resume else own.config_path
    path = None if own.resume and not path.exists() else path
    keys, flags = with_one_length(parse_overrides(rest)), flag_names(FLAGS)
    return load_config(keys, config_class_of=config_class_of, config_path=path, flags=flags)


def main(arguments):
    from src.common import heartbeat
    from src.training import session
    from src.training.signals import Interrupted
    from src.zoo import create_recipe

    own, rest = FLAGS.parse_known_args(arguments)
    config = settings(arguments)
    try:
        if own.resume is not None:
            session.check_resume(own.resume, rest, config_path=own.config_path)
            heartbeat.announce(own.resume, arguments)  # a restart has the same keys
            session.resume(config, create_recipe, run_dir=Path(own.resume))
        else:
            name = Path(own.config_path).stem if own.config_path else config.model
            session.start(config, create_recipe, run_dir=session.new_run_dir(config, recipe_name=name))
    except Interrupted as stop:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(stop, file=sys.stderr)
        return stop.exit_code
    return 0


if __name__ == "__main__":
    run(main, around=on_modelarts(settings))
