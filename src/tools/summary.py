"""What a training costs before it is paid for: parameters, multiply-adds, and memory of a card.

python -m src.tools.summary bit_r101x3 --image_size 160 --batch_size 64 --recompute true
python -m src.tools.summary --config_path configs/resnet9/cifar10.yaml --card_memory 16 --json

Every other --key value is a config key. The network runs with one image on the CPU. Memory is an estimate:
what training holds, and what the framework says it keeps for the backward pass. An image's share was within
3 % of that of measured CPU steps (ResNet9; R50x1 at 96x96), with recompute 16 % too much. Working memory is
not in it: 2 to 3 times R50x1's weights there. --device_target CPU counts a CPU's operators, not a card's.

Of a binary network (birealnet18) 1-bit and 32-bit counts stand apart, and the model's size is given twice: 4
bytes a number, and 1/8 byte a 1-bit weight with 4 bytes each other number, running statistics included.
"""

import bisect
import math

from ..common.cli import parser, run
from ..key_help import key_help

GIB = 2**30
USABLE = 0.9  # the share of a card that working memory, framework and communication leave: an assumption
COUNTS = ("parameters", "parameters_1bit", "multiply_adds", "multiply_adds_1bit")
KEYS = ("model", "image_size", "batch_size", "accumulate_steps", "amp_level", "optimizer", "ema_decay")


def summarise(recipe, num_classes: int, card_memory: float, depth: int = 0) -> dict:
    """The figures of a recipe for cards of `card_memory` GiB: counts of one image, sizes in bytes.

    The blocks are the cells down to level `depth`; 0: down to where they are five or more.
    """
    from ..analysis.cost import measure
    from ..layers.device import use_plain_operators
    from ..training.precision import set_precision

    config = recipe.config
    network = recipe.network(num_classes=num_classes)
    optimizer = recipe.optimizer(network, recipe.loss())
    trained = sum(p.nbytes for p in optimizer.parameters)
    weights = {p.name: p.nbytes for p in network.get_parameters()}
    fixed = {
        "weights": sum(weights.values()),
        "gradients": trained,
        "optimizer": sum(p.nbytes for p in optimizer.get_parameters() if p.name not in weights),
        "ema": sum(weights.values()) if config.ema_decay else 0,
        "accumulation": trained if config.accumulate_steps > 1 else 0,
    }
    del optimizer
    if config.device_target != "CPU":
        use_plain_operators(network)  # a card's operators keep other tensors
    cost = measure(set_precision(network, config.amp_level), image_size=config.image_size)
    counts = _sums(cost.cells)
    one_bit = counts["parameters_1bit"]

    def memory(images: int) -> dict[str, int]:
        numbers = images * (3 * config.image_size**2 + num_classes)
        parts = fixed | {"activations": cost.activations(images), "input": 4 * numbers}
        return parts | {"total": sum(parts.values())}

    limit = USABLE * card_memory * GIB
    largest = max(0, bisect.bisect_right(range(1 << 24), limit, key=lambda n: memory(n)["total"]) - 1)
    return {
        "num_classes": num_classes,
        **{name: getattr(config, name) for name in KEYS},
        "recompute": bool(cost.recomputed),
        "images_per_update": config.batch_size * config.accumulate_steps,
        "blocks": _blocks(cost.cells, depth),
        **counts,
        "model_bytes_float": fixed["weights"],
        "model_bytes_bits": fixed["weights"] - 4 * one_bit + math.ceil(one_bit / 8),
        "memory": memory(config.batch_size),
        "card_memory": int(card_memory * GIB),
        "fits": config.batch_size <= largest,
        "largest_batch": largest,
        "largest_power_of_two": 1 << largest.bit_length() >> 1,
    }


def _sums(cells) -> dict[str, int]:
    return {name: sum(getattr(cell, name) for cell in cells) for name in COUNTS}


def _blocks(cells, depth: int) -> list[dict]:
    """A row for each cell of that level, and for those above it that hold parameters or no cells."""
    used = [cell for cell in cells[1:] if cell.output_shape or cell.parameters]
    for level in [depth] if depth else range(1, 10):
        rows = []
        for cell in used:
            if rows and cell.name.startswith(f"{rows[-1]['name']}."):
                continue
            all_in = [c for c in used if f"{c.name}.".startswith(f"{cell.name}.")]
            if cell.name.count(".") + 1 >= level or cell.parameters or len(all_in) == 1:
                rows.append({"name": cell.name, "output": cell.output_shape, **_sums(all_in)})
        if len(rows) >= 5:
            break
    return rows


def _columns(row: dict, binary: bool) -> dict[str, int]:
    """The numbers of a row by the names of their columns; where `binary`, of each kind apart."""
    columns = {}
    for name in ("parameters", "multiply_adds"):
        title, total, one_bit = name.replace("_", "-"), row[name], row[f"{name}_1bit"]
        kinds = {f"1-bit {title}": one_bit, f"32-bit {title}": total - one_bit}
        columns |= kinds if binary else {title: total}
    return columns


def _binary_lines(facts: dict) -> list[str]:
    """FLOPs as the paper of Bi-Real Net counts them (arXiv 1808.00278), and the size of the model."""
    one_bit = facts["multiply_adds_1bit"]
    flops = facts["multiply_adds"] - one_bit + one_bit / 64
    as_float, as_bits = (facts[f"model_bytes_{kind}"] for kind in ("float", "bits"))
    return [
        f"FLOPs {flops:.4g} (32-bit multiply-adds, and 1-bit ones / 64)",
        f"model size {as_float:,} bytes as float ({as_float / 2**20:.2f} MiB), {as_bits:,} as bits "
        f"({as_bits / 2**20:.2f} MiB, {as_bits / 125e3:.1f} Mbit), running statistics included",
    ]


def as_text(facts: dict) -> str:
    """The figures as two tables and a verdict; of 1-bit cells there is more to say."""
    binary = facts["parameters_1bit"] > 0
    widths = (18, 19, 21, 22) if binary else (16, 18)
    rows = [(row["name"], row["output"], _columns(row, binary)) for row in facts["blocks"]]
    total = _columns(facts, binary)
    text = [f"{facts['model']:<24}{'output':>16}" + "".join(map(str.rjust, total, widths))]
    for name, output, columns in [*rows, ("total", (), total)]:
        numbers = (f"{number:,}" for number in columns.values())
        text.append(f"{name:<24}{'x'.join(map(str, output)):>16}" + "".join(map(str.rjust, numbers, widths)))
    text += _binary_lines(facts) if binary else []
    text += ["", "memory of a card in training, GiB (estimate)"]
    text += [f"{name:<24}{size / GIB:>16.3f}" for name, size in facts["memory"].items()]
    text.append(", ".join(f"{name} {facts[name]}" for name in (*KEYS, "recompute", "images_per_update")))
    verdict = f"batch_size {facts['batch_size']} {'fits' if facts['fits'] else 'does not fit'}"
    best = f"largest {facts['largest_batch']}, largest power of two {facts['largest_power_of_two']}"
    text.append(f"{verdict} into {USABLE:.0%} of {facts['card_memory'] / GIB:g} GiB; {best}")
    return "\n".join(text)


def main(arguments):
    named = {"model": arguments[0]} if arguments and not arguments[0].startswith("-") else {}
    flags = parser(__doc__, keys=key_help)
    flags.usage = "python -m src.tools.summary [MODEL] [flags] [--key value ...]"
    flags.add_argument("--config_path", help="a recipe of configs/")
    flags.add_argument("--num_classes", type=int, default=10, help="classes of the data (10)")
    flags.add_argument("--card_memory", type=float, default=32, help="GiB of a card (32, an Ascend 910)")
    flags.add_argument("--depth", type=int, default=0, help="levels of cells in the table (few rows)")
    flags.add_argument("--json", action="store_true", help="one JSON object on the last line, sizes in bytes")
    own, rest = flags.parse_known_args(arguments[len(named) :])

    from ..common.errors import UserError
    from ..common.files import to_json
    from ..common.log import setup_logging
    from ..model_utils.config import load_config, parse_overrides
    from ..model_utils.device_adapter import set_up_device
    from ..zoo import config_class_of, create_recipe

    for name in ("num_classes", "card_memory"):
        if not 0 < getattr(own, name) < 1e6:
            raise UserError(f"{name}: {getattr(own, name):g} given, allowed: a number > 0")
    keys = named | parse_overrides(rest)
    config = load_config(keys, config_class_of=config_class_of, config_path=own.config_path)
    setup_logging(None).setLevel("WARNING")
    set_up_device("CPU", seed=config.seed)
    facts = summarise(create_recipe(config), own.num_classes, own.card_memory, own.depth)
    print(as_text(facts))
    if own.json:
        print(to_json(facts))


if __name__ == "__main__":
    run(main)
