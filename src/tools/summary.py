"""What a training costs before it is paid for: parameters, multiply-adds, and memory of a card.

python -m src.tools.summary bit_r101x3 --image_size 160 --batch_size 64 --recompute true
python -m src.tools.summary --config_path configs/resnet9/cifar10.yaml --card_memory 16 --json

Every other --key value is a config key. The network runs with one image on the CPU. Memory is an estimate:
what training holds, and what the framework says it keeps for the backward pass. An image's share was within
3 % of that of measured CPU steps (ResNet9; R50x1 at 96x96), with recompute 16 % too much. Working memory is
not in it: 2 to 3 times R50x1's weights there. --device_target CPU counts a CPU's operators, not a card's.
"""

import bisect

from src.model_utils.door import parser, run

GIB = 2**30
USABLE = 0.9  # the share of a card that working memory, framework and communication leave: an assumption
KEYS = ("model", "image_size", "batch_size", "accumulate_steps", "amp_level", "optimizer", "ema_decay")


def summarise(recipe, num_classes: int, card_memory: float, depth: int = 0) -> dict:
    """The figures of a recipe for cards of `card_memory` GiB: counts of one image, sizes in bytes.

    The blocks are the cells down to level `depth`; 0: down to where they are five or more.
    """
    from src.evaluation.cost import measure
    from src.training.precision import set_precision

    config = recipe.config
    network = recipe.network(num_classes=num_classes)
    optimizer = recipe.optimizer(network)
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
    for _, cell in network.cells_and_names():
        if config.device_target != "CPU" and hasattr(cell, "on_cpu"):
            cell.on_cpu = False  # a card's operators keep other tensors
    cost = measure(set_precision(network, config.amp_level), image_size=config.image_size)

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
        "parameters": sum(cell.parameters for cell in cost.cells),
        "multiply_adds": sum(cell.multiply_adds for cell in cost.cells),
        "memory": memory(config.batch_size),
        "card_memory": int(card_memory * GIB),
        "fits": config.batch_size <= largest,
        "largest_batch": largest,
        "largest_power_of_two": 1 << largest.bit_length() >> 1,
    }


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
                sums = {k: sum(getattr(c, k) for c in all_in) for k in ("parameters", "multiply_adds")}
                rows.append({"name": cell.name, "output": cell.output_shape, **sums})
        if len(rows) >= 5:
            break
    return rows


def as_text(facts: dict) -> str:
    """The figures as two tables and a verdict."""
    text = [f"{facts['model']:<24}{'output':>16}{'parameters':>16}{'multiply-adds':>18}"]
    for row in [*facts["blocks"], facts | {"name": "total", "output": ()}]:
        shape = "x".join(map(str, row["output"]))
        text.append(f"{row['name']:<24}{shape:>16}{row['parameters']:>16,}{row['multiply_adds']:>18,}")
    text += ["", "memory of a card in training, GiB (estimate)"]
    text += [f"{name:<24}{size / GIB:>16.3f}" for name, size in facts["memory"].items()]
    text.append(", ".join(f"{name} {facts[name]}" for name in (*KEYS, "recompute", "images_per_update")))
    verdict = f"batch_size {facts['batch_size']} {'fits' if facts['fits'] else 'does not fit'}"
    best = f"largest {facts['largest_batch']}, largest power of two {facts['largest_power_of_two']}"
    text.append(f"{verdict} into {USABLE:.0%} of {facts['card_memory'] / GIB:g} GiB; {best}")
    return "\n".join(text)


def main(arguments):
    named = {"model": arguments[0]} if arguments and not arguments[0].startswith("-") else {}
    flags = parser(__doc__)
    flags.usage = "python -m src.tools.summary [MODEL] [flags] [--key value ...]"
    flags.add_argument("--config_path", help="a recipe of configs/")
    flags.add_argument("--num_classes", type=int, default=10, help="classes of the data (10)")
    flags.add_argument("--card_memory", type=float, default=32, help="GiB of a card (32, an Ascend 910)")
    flags.add_argument("--depth", type=int, default=0, help="levels of cells in the table (few rows)")
    flags.add_argument("--json", action="store_true", help="one JSON object on the last line, sizes in bytes")
    own, rest = flags.parse_known_args(arguments[len(named) :])

    from src.model_utils.config import load_config, parse_overrides
    from src.model_utils.device_adapter import set_up_device
    from src.model_utils.errors import UserError
    from src.model_utils.files import to_json
    from src.training.records import setup_logging
    from src.zoo import config_class_of, create_recipe

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
