# SPDX-License-Identifier: Apache-2.0
"""Which learning rates a recipe can take: Smith's range test, a short run with a rising rate.

python -m src.tools.find_lr configs/resnet9/cifar10.yaml --data_path data
python -m src.tools.find_lr configs/resnet9/cifar10.yaml --data_path data --lr_max 2 --eval_every 0.1

It trains as train.py does, while the rate rises from lr_min to lr_max, and adds lr_range.png to the run's
folder. It ends early if the loss is no longer finite. Every other --key value is a config key: --epochs (1 by
default) may be less than one, and with --eval_every the test accuracy is drawn too. The rates of groups
(muon_lr, thor_lr, head_lr, of biases) rise in proportion.

base: the rate at which the smoothed loss has made the first 10 % of its fall. max: half the rate at which it
is lowest, or lr_max if it does not rise again. The last line is one JSON object. The test is Smith's (arXiv
1506.01186), the rule for base and max our own.
"""

from ..common.cli import flag_names, parser, run
from ..key_help import key_help


def main(arguments):
    flags = parser(__doc__, keys=key_help)
    flags.usage = "python -m src.tools.find_lr CONFIG [flags] [--key value ...]"
    flags.add_argument("config", nargs="+", metavar="CONFIG", help="a recipe of configs/")
    flags.add_argument("--lr_min", type=float, help="first rate (a hundredth of the recipe's lr)")
    flags.add_argument("--lr_max", type=float, help="last rate (ten times the recipe's lr)")
    flags.add_argument(
        "--exponential",
        action="store_true",
        help="multiply the rate by the same factor at each step, in place of adding the same amount",
    )
    own, rest = flags.parse_known_args(arguments)

    import contextlib
    import sys

    from ..common.errors import UserError
    from ..common.files import to_json
    from ..training.signals import Interrupted

    if len(own.config) > 1:
        raise UserError(f"{own.config[1]}: given behind {own.config[0]}, allowed: one recipe")
    try:
        facts = _test(own, rest, flag_names(flags))
    except Interrupted as stop:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(stop, file=sys.stderr)
        return stop.exit_code
    print(f"base {facts['base_lr']:.3g}, max {facts['max_lr']:.3g}; {facts['picture']}\n{to_json(facts)}")
    return 0


def _test(own, rest, flags):
    import time
    from pathlib import Path

    from ..experiments.lr_range import check_rates, keys_of_range, report
    from ..model_utils.config import load_config, parse_overrides
    from ..optim.schedules import rate_factor
    from ..training import session
    from ..training.records import read_metrics
    from ..training.soundness import Unsound
    from ..zoo import config_class_of, create_recipe

    path = own.config[0]
    # A name of its own, so that the folder is known where the run ends early.
    name = f"{Path(path).stem}-lr_range-{time.strftime('%Y%m%d-%H%M%S')}"
    keys = {"epochs": 1.0, "train_steps": 0, "run_name": name, **parse_overrides(rest)}
    how = {"config_class_of": config_class_of, "config_path": path, "flags": flags}
    config = load_config(keys, **how)
    rates = {
        "lr_min": config.lr / 100 if own.lr_min is None else own.lr_min,
        "lr_max": config.lr * 10 if own.lr_max is None else own.lr_max,
    }
    more = keys_of_range(config, **rates, exponential=own.exponential, given=keys)
    config = load_config(keys | more, **how)
    check_rates(create_recipe(config))
    run_dir, diverged = session.new_run_dir(config, recipe_name=""), False
    try:
        session.start(config, create_recipe, run_dir=run_dir)
    except Unsound:
        diverged = True
    return report(
        read_metrics(run_dir / "metrics.jsonl"),
        run_dir,
        factor=rate_factor(config, images_per_update=config.batch_size * config.accumulate_steps),
        diverged=diverged,
        exponential=own.exponential,
        facts={"config": path, "run": str(run_dir), **rates},
    )


if __name__ == "__main__":
    run(main)
