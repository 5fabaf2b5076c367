"""What a training costs before it is paid for: parameters, multiply-adds, and memory of a card.

python -m src.tools.summary bit_r101x3 --image_size 160 --batch_size 64 --recompute true
python -m src.tools.summary --config_path configs/resnet9/cifar10.yaml --card_memory 16 --json

The network runs once with one image, on the CPU. Memory is an estimate: what training holds for certain, and
what the framework says that it keeps for the backward pass. Not in it are working memory of operators, and
what the update of the weights needs for a moment.
"""

import bisect
import logging
from typing import Any

from src.model_utils.door import parser, run

GIB = 2**30
USABLE = 0.9  # share of a card's memory that the framework and its libraries leave: an assumption
ROWS = 5  # fewer do not tell where the cost is


def summarise(config, *, num_classes: int, card_memory: float, depth: int = 0) -> dict[str, Any]:
    """The figures of a config: counts of one image, sizes in bytes.

    Args:
        card_memory: in GiB.
        depth: levels of cells in the table; 0: as many as give at least ROWS rows.
    """
    from src.evaluation.cost import measure
    from src.training.precision import set_precision
    from src.zoo import create_recipe

    recipe = create_recipe(config)
    network = recipe.network(num_classes=num_classes)
    weights = list(network.get_parameters())
    optimizer = recipe.optimizer(network)
    trained = sum(p.nbytes for p in optimizer.parameters)
    fixed = {
        "weights": sum(p.nbytes for p in weights),
        "gradients": trained,
        "optimizer": sum(p.nbytes for p in optimizer.get_parameters() if p not in weights),
        "ema": sum(p.nbytes for p in weights) if config.ema_decay else 0,
        "accumulation": trained if config.accumulate_steps > 1 else 0,
    }
    del optimizer
    if config.device_target != "CPU":
        for _, cell in network.cells_and_names():
            if getattr(cell, "on_cpu", False):
                cell.on_cpu = False  # the operators of a card keep other tensors
    cost = measure(set_precision(network, config.amp_level), image_size=config.image_size)

    def memory(images: int) -> dict[str, int]:
        batch = 4 * images * (3 * config.image_size**2 + num_classes)
        return fixed | {"activations": cost.activations(images), "input": batch}

    limit = int(USABLE * card_memory * GIB)
    largest = bisect.bisect_right(range(1 << 24), limit, key=lambda n: sum(memory(n).values())) - 1
    parts = memory(config.batch_size)
    keys = ("image_size", "batch_size", "accumulate_steps", "amp_level", "optimizer", "ema_decay")
    return {
        "model": config.model,
        "num_classes": num_classes,
        **{name: getattr(config, name) for name in keys},
        "recompute": bool(cost.recomputed),
        "images_per_update": config.batch_size * config.accumulate_steps,
        "parameters": sum(cell.parameters for cell in cost.cells),
        "multiply_adds": sum(cell.multiply_adds for cell in cost.cells),
        "blocks": _blocks(cost.cells, depth),
        "memory": parts | {"total": sum(parts.values())},
        "card_memory": int(card_memory * GIB),
        "fits": sum(parts.values()) <= limit,
        "largest_batch": max(largest, 0),
        "largest_power_of_two": 1 << largest.bit_length() - 1 if largest > 0 else 0,
    }


def _blocks(cells, depth: int) -> list[dict[str, Any]]:
    """A row for each cell of that level, and for those above it that hold parameters or no cells."""
    used = [cell for cell in cells[1:] if cell.output_shape or cell.parameters]
    rows: list[dict[str, Any]] = []
    for level in [depth] if depth else range(1, 10):
        rows = []
        for cell in used:
            if rows and cell.name.startswith(f"{rows[-1]['name']}."):
                continue
            inside = [c for c in used if c.name.startswith(f"{cell.name}.")]
            if cell.name.count(".") + 1 >= level or cell.parameters or not inside:
                rows.append(
                    {
                        "name": cell.name,
                        "output": list(cell.output_shape),
                        "parameters": sum(c.parameters for c in [cell, *inside]),
                        "multiply_adds": sum(c.multiply_adds for c in [cell, *inside]),
                    }
                )
        if len(rows) >= ROWS:
            break
    return rows


def as_text(facts: dict[str, Any]) -> str:
    """The figures as a table for people."""
    line = "{:<24}{:>16}{:>16}{:>16}".format
    text = [line(facts["model"], "output", "parameters", "multiply-adds")]
    for row in facts["blocks"]:
        shape = "x".join(map(str, row["output"]))
        text.append(line(row["name"], shape, f"{row['parameters']:,}", _short(row["multiply_adds"])))
    text.append(line("total", "", f"{facts['parameters']:,}", _short(facts["multiply_adds"])))

    titles = {
        "weights": "weights",
        "gradients": "gradients",
        "optimizer": f"state of {facts['optimizer']}",
        "ema": "average of weights",
        "accumulation": "accumulated gradients",
        "activations": "kept for the backward pass",
        "input": "images and targets",
        "total": "total",
    }
    text += ["", "Memory of a card in training, GiB, estimated"]
    text += [f"  {title:<30}{facts['memory'][name] / GIB:>8.2f}" for name, title in titles.items()]
    keys = (
        "image_size",
        "batch_size",
        "accumulate_steps",
        "recompute",
        "amp_level",
        "optimizer",
        "ema_decay",
    )
    text += [
        "with " + ", ".join(f"{name} {facts[name]}".lower() for name in keys),
        f"{facts['images_per_update']} images an update on each card",
        "",
        f"{'Fits' if facts['fits'] else 'Does not fit'} {USABLE:.0%} of a card of "
        f"{facts['card_memory'] / GIB:g} GiB; the largest batch that does is {facts['largest_batch']}, "
        f"the largest power of two {facts['largest_power_of_two']}",
    ]
    return "\n".join(text)


def _short(count: int) -> str:
    """379261952 as 379.3 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count)


def main(arguments):
    words = list(arguments)
    named = {"model": words.pop(0)} if words and not words[0].startswith("-") else {}
    flags = parser(__doc__)
    flags.usage = "python -m src.tools.summary [MODEL] [flags] [--key value ...]"
    flags.epilog = "Every other --key value is a config key; train.py --help lists them."
    flags.add_argument("--config_path", help="a recipe of configs/")
    flags.add_argument("--num_classes", type=int, default=10, help="classes of the data (10)")
    flags.add_argument("--card_memory", type=float, default=32.0, help="of a card, in GiB (32: Ascend 910)")
    flags.add_argument("--depth", type=int, default=0, help="levels of cells in the table (few rows)")
    flags.add_argument("--json", action="store_true", help="one JSON object on the last line, sizes in bytes")
    own, rest = flags.parse_known_args(words)

    from src.model_utils.config import load_config, parse_overrides
    from src.model_utils.device_adapter import set_up_device
    from src.model_utils.errors import UserError
    from src.model_utils.files import to_json
    from src.zoo import config_class_of

    for name, given, least in (
        ("num_classes", own.num_classes, 1),
        ("card_memory", own.card_memory, 0),
        ("depth", own.depth, 0),
    ):
        if not least <= given < 1e6:
            raise UserError(f"{name}: {given} given, allowed: a number >= {least}")
    config = load_config(
        named | parse_overrides(rest), config_class_of=config_class_of, config_path=own.config_path
    )
    logging.getLogger("quartet").setLevel(logging.WARNING)
    set_up_device("CPU", seed=config.seed)
    facts = summarise(config, num_classes=own.num_classes, card_memory=own.card_memory, depth=own.depth)
    print(as_text(facts))
    if own.json:
        print(to_json(facts))


if __name__ == "__main__":
    run(main)
