"""The pooling exponent of a MultiGrain network for a test resolution: p* by trying, no weight is changed.

python -m src.tools.choose_p --checkpoint_path runs/RUN/checkpoints/best.ckpt --eval_image_size 500
python -m src.tools.choose_p --checkpoint_path best.ckpt --eval_image_size 500 --split train --criterion loss

Half of the evaluation images, by `subset_seed` and as many of each class, choose p*; the figures of p* and of
the training's p are of the other half alone. With --split train, images of the training set choose
(`examples_per_class`, 50 where that is 0), prepared as in evaluation, which is how the official p* was found,
and all evaluation images give the figures. Images are not mirrored, whatever `flip_tta` says. The last line
is one JSON object; what it names as `use` goes to eval.py, export.py and the other tools.
"""

from ..common.cli import checkpoint_parser, run

COARSE = "1,1.5,2,2.5,3,3.5,4,4.5,5,5.5,6,6.5,7,7.5,8,max"
FINE = (-0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4)  # about the best of them


def main(arguments):
    flags = checkpoint_parser(__doc__)
    flags.add_argument("--p", help=f"exponents to try ({COARSE}, then tenths about the best)")
    flags.add_argument(
        "--split", choices=("test", "train"), default="test", help="whose images choose (test)"
    )
    flags.add_argument("--criterion", choices=("top1", "loss"), default="top1", help="by what (top1)")
    own, rest = flags.parse_known_args(arguments)

    import math

    from ..common.errors import UserError
    from ..common.files import to_json
    from ..multigrain.exponent import best_of, figures, split_in_half, training_exponent
    from ..multigrain.network import MultiGrain
    from ..parallel.collective import sum_over_ranks
    from ..trained import open_from_flags

    try:
        exponents = [math.inf if p == "max" else float(p) for p in (own.p or COARSE).split(",")]
    except ValueError:
        exponents = []
    if not exponents or not all(p > 0 for p in exponents):
        raise UserError(f"p: {own.p} given, allowed: numbers above 0 and max, with commas between")
    trained = open_from_flags(own, rest)
    recipe, network, device = trained.recipe, trained.network, trained.device
    config = recipe.config
    if not isinstance(network, MultiGrain):
        raise UserError(f"checkpoint {own.checkpoint_path} is of {config.model}; only MultiGrain pools by p")

    def measure(images, exponents):
        of_images = recipe.changed(sources={"test": images})
        batches = of_images.eval_batches(rank=device.rank, size=device.size)
        trained.checkpoint.check_classes(batches.class_names)
        return figures(
            network, recipe.inputs(), batches, exponents, reduce=lambda v: sum_over_ranks(v, size=device.size)
        )

    reporting = recipe.source("test")
    if own.split == "train":
        few = config.examples_per_class or 50
        choosing = recipe.changed(sources={}, examples_per_class=few).source("train")
    else:
        chosen, reported = split_in_half(reporting.labels, config.subset_seed)
        choosing, reporting = reporting.take(chosen), reporting.take(reported)
    by_loss = own.criterion == "loss"
    table = measure(choosing, exponents)
    best = best_of(table, by_loss=by_loss)["p"]
    if not own.p and math.isfinite(best):
        table += measure(choosing, [round(best + step, 1) for step in FINE])
        table.sort(key=lambda row: row["p"])
        best = best_of(table, by_loss=by_loss)["p"]
    before, after = measure(reporting, [training_exponent(network), best])
    if device.rank == 0:
        for row in (*table, before, after):
            if math.isinf(row["p"]):  # JSON has no infinity, and the key has max
                row["p"] = "max"
        facts = {
            "checkpoint": own.checkpoint_path,
            "model": config.model,
            "image_size": recipe.image_size,
            "averaged_weights": trained.averaged,
            "split": own.split,
            "criterion": own.criterion,
            "images_choosing": len(choosing),
            "images_reporting": len(reporting),
            "table": table,
            **{f"{name}_training": value for name, value in before.items()},
            **{f"{name}_star": value for name, value in after.items()},
            "use": f"--eval_pooling_exponent {after['p']}",
        }
        print(to_json(facts))


if __name__ == "__main__":
    run(main)
