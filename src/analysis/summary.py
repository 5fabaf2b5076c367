# SPDX-License-Identifier: Apache-2.0
"""What a training costs before it is paid for: counts of a network, and a card's memory, as two tables."""

import bisect
import math
from collections.abc import Sequence
from typing import Any

from mindspore import Parameter, nn

from ..layers.device import use_plain_operators
from ..training.build import TrainRecipe
from ..training.precision import set_precision
from .compute import PFLOP, batches_an_epoch, compute_of
from .cost import CellCost, measure

GIB = 2**30
USABLE = 0.9  # the share of a card that working memory, framework and communication leave: an assumption
COUNTS = ("parameters", "parameters_1bit", "multiply_adds", "multiply_adds_1bit")
KEYS = ("model", "image_size", "batch_size", "accumulate_steps", "amp_level", "optimizer", "ema_decay")


def summarise(
    recipe: TrainRecipe,
    *,
    num_classes: int,
    card_memory: float,
    depth: int = 0,
    images: int = 0,
    test_images: int = 0,
) -> dict[str, Any]:
    """The figures of a recipe: counts of one image, sizes in bytes.

    Args:
        recipe: of a config.
        num_classes: classes of the data set.
        card_memory: of one card, in GiB.
        depth: the blocks are the cells down to this level; 0: down to where they are five or more.
        images: of the training set, for the compute of a run; 0: unknown.
        test_images: of the test set.

    Raises:
        UserError: the network does not take images of the config's size.
    """
    config = recipe.config
    network = recipe.network(num_classes=num_classes)
    optimizer = recipe.optimizer(network, recipe.loss(rank=0, size=1))
    trained = sum(p.nbytes for p in optimizer.parameters)
    factors, inverting = sum(p.nbytes for p in optimizer.factors), _inverting(optimizer.factors)
    weights = {p.name: p.nbytes for p in network.get_parameters()}
    fixed = {
        "weights": sum(weights.values()),
        "gradients": trained,
        "factors": factors,
        "inverting": inverting,
        "optimizer": sum(p.nbytes for p in optimizer.get_parameters() if p.name not in weights),
        "ema": sum(weights.values()) if config.ema_decay else 0,
        "accumulation": trained + factors if config.accumulate_steps > 1 else 0,
    }
    del optimizer
    if config.device_target != "CPU":
        use_plain_operators(network)  # a card's operators keep other tensors
    cost = measure(set_precision(network, config.amp_level), image_size=config.image_size)
    patches = _largest_patches(network, cost.cells)
    counts = _sums(cost.cells)
    one_bit = counts["parameters_1bit"]

    def memory(images: int) -> dict[str, int]:
        numbers = images * (3 * config.image_size**2 + num_classes)
        parts = fixed | {"activations": cost.activations(images), "patches": patches * images}
        parts["input"] = 4 * numbers
        return parts | {"total": sum(parts.values())}

    limit = USABLE * card_memory * GIB
    largest = max(0, bisect.bisect_right(range(1 << 24), limit, key=lambda n: memory(n)["total"]) - 1)
    compute = {}
    if images:
        compute = _compute(recipe, images=images, test_images=test_images, num_classes=num_classes)
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
        **compute,
    }


def _inverting(factors: Sequence[Parameter]) -> int:
    """Bytes of five batches of all blocks, as large as the largest: they, damped, their roots, the roots'
    inverses, and the inverses."""
    side = max((p.shape[1] for p in factors), default=0)
    return 5 * 4 * side**2 * sum(p.shape[0] for p in factors)


def _largest_patches(network: nn.Cell, cells: Sequence[CellCost]) -> int:
    """Bytes of an image's inputs under the window, of the layer with most, of those whose factors are taken.

    Twice: as they are cut out, and row by row.
    """
    outputs = {cell.name: cell.output_shape for cell in cells}
    tapped = [(name, cell.tap) for name, cell in network.cells_and_names() if getattr(cell, "tap", None)]
    return 2 * 4 * max((tap.sizes[0] * math.prod(outputs[name][1:]) for name, tap in tapped), default=0)


def _compute(recipe: TrainRecipe, *, images: int, test_images: int, num_classes: int) -> dict[str, Any]:
    epoch = batches_an_epoch(recipe, images=images, num_classes=num_classes)
    run = compute_of(recipe, epoch=epoch, test_images=test_images, num_classes=num_classes)
    facts = {
        "updates": run.updates,
        "epochs": run.epochs,
        "training_images": run.images,
        "training_image_flop": run.step,
        "test_views": run.views,
        "training_pflop": run.training / PFLOP,
        "test_pflop": run.test / PFLOP,
        "pflop": run.pflop,
    }
    return {"compute": facts}


def _sums(cells: Sequence[CellCost]) -> dict[str, int]:
    return {name: sum(getattr(cell, name) for cell in cells) for name in COUNTS}


def _blocks(cells: Sequence[CellCost], depth: int) -> list[dict[str, Any]]:
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


def _columns(row: dict[str, Any], binary: bool) -> dict[str, int]:
    """The numbers of a row by the names of their columns; where `binary`, of each kind apart."""
    columns = {}
    for name in ("parameters", "multiply_adds"):
        title, total, one_bit = name.replace("_", "-"), row[name], row[f"{name}_1bit"]
        kinds = {f"1-bit {title}": one_bit, f"32-bit {title}": total - one_bit}
        columns |= kinds if binary else {title: total}
    return columns


def _binary_lines(facts: dict[str, Any]) -> list[str]:
    """FLOPs as the paper of Bi-Real Net counts them (arXiv 1808.00278), and the size of the model."""
    one_bit = facts["multiply_adds_1bit"]
    flops = facts["multiply_adds"] - one_bit + one_bit / 64
    as_float, as_bits = (facts[f"model_bytes_{kind}"] for kind in ("float", "bits"))
    return [
        f"FLOPs {flops:.4g} (32-bit multiply-adds, and 1-bit ones / 64)",
        f"model size {as_float:,} bytes as float ({as_float / 2**20:.2f} MiB), {as_bits:,} as bits "
        f"({as_bits / 2**20:.2f} MiB, {as_bits / 125e3:.1f} Mbit), running statistics included",
    ]


def _compute_lines(facts: dict[str, Any]) -> list[str]:
    run = facts["compute"]
    return [
        "",
        "compute of a run, PFLOP: convolutions and dense layers, 2 FLOP a multiply-add",
        f"{'training':<24}{run['training_pflop']:>16.4f}  {run['updates']:,} updates, {run['epochs']:.4g} "
        f"epochs, {run['training_images']:,} images of {run['training_image_flop']:,} FLOP",
        f"{'last evaluation':<24}{run['test_pflop']:>16.4f}  {run['test_views']:,.0f} views",
        f"{'total':<24}{run['pflop']:>16.4f}",
    ]


def as_text(facts: dict[str, Any]) -> str:
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
    text += _compute_lines(facts) if "compute" in facts else []
    text += ["", "memory of a card in training, GiB (estimate)"]
    text += [f"{name:<24}{size / GIB:>16.3f}" for name, size in facts["memory"].items()]
    text.append(", ".join(f"{name} {facts[name]}" for name in (*KEYS, "recompute", "images_per_update")))
    verdict = f"batch_size {facts['batch_size']} {'fits' if facts['fits'] else 'does not fit'}"
    best = f"largest {facts['largest_batch']}, largest power of two {facts['largest_power_of_two']}"
    text.append(f"{verdict} into {USABLE:.0%} of {facts['card_memory'] / GIB:g} GiB; {best}")
    return "\n".join(text)
