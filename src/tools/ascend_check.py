# SPDX-License-Identifier: Apache-2.0
"""Whether an Ascend card can run a config, by MindSpore's documentation; without a card and without data.

python -m src.tools.ascend_check configs/resnet9/cifar10.yaml
python -m src.tools.ascend_check configs/bit/r101x3_cifar10.yaml --batch_size 32 --cards 64 --json

Compiles the train step, the evaluation and the exported network as for a card, runs none of them, and lists
each primitive with the platforms that are documented for it. One that is not documented for Ascend has a line
of its own, and the exit code is 2. With optimizer thor, "factors" is the step of updates with new inverses,
and a line has what the cards then send beyond all other updates. The figures are those before Ascend's own
optimisations: only a card knows what those fuse, and where they change layouts. Every other --key value is a
config key.
"""

import sys

from ..common.cli import parser, run
from ..key_help import key_help


def main(arguments):
    flags = parser(__doc__, keys=key_help)
    flags.usage = "python -m src.tools.ascend_check CONFIG [flags] [--key value ...]"
    flags.add_argument("config", metavar="CONFIG", help="a recipe of configs/, the first word")
    flags.add_argument("--num_classes", type=int, default=10, help="classes of the data (10)")
    flags.add_argument("--images", type=int, default=50_000, help="training images of the data (50000)")
    flags.add_argument(
        "--picture_size", type=int, default=32, help="side of the data's pictures, pixels (32)"
    )
    flags.add_argument("--cards", type=int, default=8, help="cards that train together (8)")
    flags.add_argument("--json", action="store_true", help="one JSON object on the last line, sizes in bytes")
    own, rest = flags.parse_known_args(arguments)

    import mindspore as ms

    from ..analysis.ascend_graphs import ascend_graphs
    from ..analysis.ascend_report import as_text, faults, report
    from ..common.errors import UserError
    from ..common.files import to_json
    from ..common.log import setup_logging
    from ..model_utils.config import load_config, parse_overrides
    from ..model_utils.device_adapter import set_up_device
    from ..zoo import config_class_of, create_recipe

    sizes = {name: getattr(own, name) for name in ("num_classes", "images", "picture_size", "cards")}
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"{name}: {value} given, allowed: a whole number >= 1")
    config = load_config(parse_overrides(rest), config_class_of=config_class_of, config_path=own.config)
    setup_logging(None).setLevel("ERROR")
    set_up_device("CPU", seed=config.seed)
    graphs = ascend_graphs(create_recipe(config), **sizes)
    found = report(graphs, factors_every=config.thor_every)
    lines = faults(graphs, found["primitives"])
    print(f"{config.model} ({own.config}) on {own.cards} Ascend cards, MindSpore {ms.__version__}")
    print(as_text(found))
    if not lines:
        print(f"all {len(found['primitives'])} primitives are documented for Ascend")
    if own.json:
        print(to_json({"config": own.config, "model": config.model, **sizes, **found, "faults": lines}))
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return 2 if lines else 0


if __name__ == "__main__":
    run(main)
