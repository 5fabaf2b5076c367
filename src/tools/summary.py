# SPDX-License-Identifier: Apache-2.0
"""What a training costs before it is paid for: parameters, multiply-adds, and memory of a card.

python -m src.tools.summary bit_r101x3 --image_size 160 --batch_size 64 --recompute true
python -m src.tools.summary --config_path configs/resnet9/cifar10.yaml --card_memory 16 --json

With --images N, also the compute of a whole run in PFLOP, its last evaluation included: 2 FLOP for each
multiply-add of convolutions and dense layers, and 3 forward passes for each training image. Normalisation,
activations, pooling and the optimizer are not counted. Keys that a run sets by its data (hyper_rule) count as
they stand.

python -m src.tools.summary cifarnet --batch_size 2000 --epochs 8 --tta six --images 50000

Every other --key value is a config key. The network runs with one image on the CPU. Memory is an estimate:
what training holds, and what MindSpore says it keeps for the backward pass. The share of an image was within
3 % of measured CPU steps (ResNet9; R50x1 at 96x96), and 16 % too high with recompute. Working memory comes on
top: for R50x1 there, 2 to 3 times its weights. --device_target CPU counts a CPU's operators, not a card's.

A binary network (birealnet18) has its 1-bit and 32-bit parameters counted apart, and two sizes: one with 4
bytes for each number, one with 1 bit for each 1-bit weight. Running statistics are in both.

Of thor, "factors", "inverting" and "patches", the inputs of a layer under its window, are those of an update
that inverts the factors; "inverting" is on one card. The inverses are the optimizer's.
"""

from ..common.cli import parser, run
from ..key_help import key_help


def main(arguments):
    named = {"model": arguments[0]} if arguments and not arguments[0].startswith("-") else {}
    flags = parser(__doc__, keys=key_help)
    flags.usage = "python -m src.tools.summary [MODEL] [flags] [--key value ...]"
    flags.add_argument("--config_path", help="a recipe of configs/")
    flags.add_argument("--num_classes", type=int, default=10, help="classes of the data (10)")
    flags.add_argument("--card_memory", type=float, default=32, help="GiB of a card (32, an Ascend 910)")
    flags.add_argument("--images", type=int, default=0, help="training images of the data (0: unknown)")
    flags.add_argument("--test_images", type=int, default=10_000, help="test images of the data (10000)")
    flags.add_argument(
        "--depth", type=int, default=0, help="levels of layers in the table (as many as make few rows)"
    )
    flags.add_argument("--json", action="store_true", help="one JSON object on the last line, sizes in bytes")
    own, rest = flags.parse_known_args(arguments[len(named) :])

    from ..analysis.summary import as_text, summarise
    from ..common.errors import UserError
    from ..common.files import to_json
    from ..common.log import setup_logging
    from ..model_utils.config import load_config, parse_overrides
    from ..model_utils.device_adapter import set_up_device
    from ..optim.keys import with_one_length
    from ..zoo import config_class_of, create_recipe

    for name in ("num_classes", "card_memory"):
        if not 0 < getattr(own, name) < 1e6:
            raise UserError(f"{name}: {getattr(own, name):g} given, allowed: a number > 0")
    for name in ("images", "test_images"):
        if getattr(own, name) < 0:
            raise UserError(f"{name}: {getattr(own, name)} given, allowed: a whole number >= 0")
    keys = with_one_length(named | parse_overrides(rest))
    config = load_config(keys, config_class_of=config_class_of, config_path=own.config_path)
    setup_logging(None).setLevel("WARNING")
    set_up_device("CPU", seed=config.seed)
    names = ("num_classes", "card_memory", "depth", "images", "test_images")
    sizes = {name: getattr(own, name) for name in names}
    facts = summarise(create_recipe(config), **sizes)
    print(as_text(facts))
    if own.json:
        print(to_json(facts))


if __name__ == "__main__":
    run(main)
