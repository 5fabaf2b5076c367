# SPDX-License-Identifier: Apache-2.0
"""The best pooling exponent p* of a MultiGrain network at a test resolution, by trying; no weight changes.

python -m src.multigrain.choose_p --checkpoint_path runs/RUN --eval_image_size 500
python -m src.multigrain.choose_p --checkpoint_path best.ckpt --eval_image_size 500 --split train

Half of the evaluation images choose p*: half of each class, drawn by `split_seed`. The other half gives the
figures of p* and of the training's p. With --split train, training images choose it (`examples_per_class`, or
50 if that is 0), prepared as in evaluation; the official p* was found so. All evaluation images then give the
figures. `tta` has no effect. The last line is one JSON object; what it names as `use` goes to eval.py,
export.py and the other tools.
"""

from ..common.cli import checkpoint_parser, run
from ..key_help import key_help


def main(arguments):
    flags = checkpoint_parser(__doc__, keys=key_help)
    flags.add_argument(
        "--p", help="exponents to try, as 1,2,max (1,1.5 ... 8,max, then tenths around the best)"
    )
    flags.add_argument(
        "--split", choices=("test", "train"), default="test", help="split whose images are evaluated (test)"
    )
    flags.add_argument(
        "--criterion",
        choices=("top1", "loss"),
        default="top1",
        help="figure that the best exponent is chosen by (top1)",
    )
    own, rest = flags.parse_known_args(arguments)
    given = _exponents(own.p)

    from ..common.errors import UserError
    from ..common.files import to_json
    from ..evaluation.door import evaluated_recipe
    from ..trained import open_from_flags
    from .exponent import COARSE, choose, training_exponent
    from .network import MultiGrain

    trained = open_from_flags(own, rest)
    config = trained.recipe.config
    if not isinstance(trained.network, MultiGrain):
        raise UserError(f"checkpoint {own.checkpoint_path} is of {config.model}; only MultiGrain pools by p")
    choosing, reporting = _images(evaluated_recipe(trained), own.split)
    best, tried = choose(
        _measure(trained, choosing), given or COARSE, refine=not given, by_loss=own.criterion == "loss"
    )
    before, after = _measure(trained, reporting)([training_exponent(trained.network), best["p"]])
    if trained.device.rank:
        return
    rows = [_named(row) for row in tried]
    before, after = _named(before), _named(after)
    facts = {
        "checkpoint": str(trained.checkpoint.path),
        "model": config.model,
        "image_size": trained.recipe.image_size,
        "averaged_weights": trained.averaged,
        "split": own.split,
        "criterion": own.criterion,
        "images_choosing": len(choosing),
        "images_reporting": len(reporting),
        "table": rows,
        **{f"{name}_training": value for name, value in before.items()},
        **{f"{name}_star": value for name, value in after.items()},
        "use": f"--eval_pooling_exponent {after['p']}",
    }
    print(_as_text(rows, before, after, facts))
    print(to_json(facts))


def _exponents(text: str | None) -> list[float]:
    """Those that were given; none: []."""
    import math

    from ..common.errors import UserError

    if text is None:
        return []
    try:
        exponents = [math.inf if p == "max" else float(p) for p in text.split(",")]
    except ValueError:
        exponents = []
    if not exponents or not all(p > 0 for p in exponents):
        raise UserError(f"p: {text} given, allowed: numbers above 0 and max, with commas between")
    return exponents


def _images(recipe, split: str) -> tuple:
    """The images that choose, and those that give the figures."""
    from .exponent import split_in_half

    config, reporting = recipe.config, recipe.source("test")
    if split == "train":
        few = recipe.changed(sources={}, examples_per_class=config.examples_per_class or 50)
        return few.source("train"), reporting
    chosen, reported = split_in_half(reporting.labels, config.split_seed)
    return reporting.take(chosen), reporting.take(reported)


def _measure(trained, images):
    """Exponents -> their figures over these images, prepared as in evaluation."""
    from ..parallel.collective import sum_over_ranks
    from .exponent import figures

    device, of_images = trained.device, trained.recipe.changed(sources={"test": images})
    batches = of_images.eval_batches(rank=device.rank, size=device.size)
    trained.checkpoint.check_classes(batches.class_names)
    return lambda exponents: figures(
        trained.network,
        of_images.inputs(),
        batches,
        exponents,
        reduce=lambda vector: sum_over_ranks(vector, size=device.size),
    )


def _named(row: dict) -> dict:
    """JSON has no infinity, and the key has max."""
    return row | {"p": "max"} if row["p"] == float("inf") else row


def _as_text(rows: list[dict], before: dict, after: dict, facts: dict) -> str:
    from ..common.table import table

    def cells(row: dict, note: str = "") -> tuple[str, ...]:
        return f"{row['p']}", f"{row['top1']:.2f} %", f"{row['loss']:.4f}", note

    of_others = f"on {facts['images_reporting']:,} other images"
    lines = [("p", "top-1", "loss", f"on {facts['images_choosing']:,} images")]
    lines += [cells(row) for row in rows]
    lines += [cells(before, f"of the training, {of_others}"), cells(after, f"chosen, {of_others}")]
    return table(lines)


if __name__ == "__main__":
    run(main)
