# SPDX-License-Identifier: Apache-2.0
"""PCA whitening of a MultiGrain checkpoint's embedding, by a folder of pictures. Class scores do not change.

python -m src.multigrain.whiten --checkpoint_path runs/RUN --images DIR --output white.ckpt
python -m src.multigrain.whiten --checkpoint_path RUN --images DIR --output white.ckpt --eval_image_size 500

The pictures need no labels; the official whitening took 20,000. They are shown whole, their longer side
`eval_image_size`; p* of that size is chosen first (multigrain.choose_p) and given as `eval_pooling_exponent`.
With fewer pictures than the embedding has numbers, give --regularisation. The output holds the network alone,
with the averaged weights if there are any, its config and the keys given here; eval.py, export.py and the
search take it as any checkpoint. The last line is one JSON object.
"""

from ..common.cli import checkpoint_parser, run
from ..key_help import key_help


def main(arguments):
    flags = checkpoint_parser(__doc__, keys=key_help)
    flags.add_argument("--images", required=True, help="a folder of pictures, to any depth")
    flags.add_argument("--output", required=True, help="the .ckpt file to write")
    flags.add_argument(
        "--regularisation",
        type=float,
        default=0.0,
        help="share of the mean variance that is added to each variance (0)",
    )
    own, rest = flags.parse_known_args(arguments)

    import mindspore as ms

    from ..checkpoint.file import write_checkpoint
    from ..checkpoint.formats import check_output
    from ..common.errors import UserError
    from ..common.files import to_json
    from ..common.table import table
    from ..data.folders import find_images
    from ..trained import open_from_flags
    from .whitening import whiten

    output = check_output(own.output)
    if not 0 <= own.regularisation < float("inf"):
        raise UserError(f"regularisation: {own.regularisation:g} given, allowed: a number >= 0")
    found = find_images([own.images])
    trained = open_from_flags(own, rest)
    if not trained.device.rank:
        print(*found.in_words(), sep="\n")
    whitened = whiten(trained, found.files, regularisation=own.regularisation)
    if trained.device.rank:
        return
    facts = {
        "images": whitened.images,
        "skipped": whitened.skipped,
        "image_size": trained.recipe.image_size,
        "regularisation": own.regularisation,
    }
    meta = trained.checkpoint.meta | {
        "config": whitened.config.model_dump(mode="json"),
        "network": list(whitened.arrays),
        "whitening": facts,
    }
    parameters = [ms.Parameter(ms.Tensor(value), name=name) for name, value in whitened.arrays.items()]
    write_checkpoint(output, parameters, meta)
    facts = {
        "checkpoint": str(trained.checkpoint.path),
        "output": own.output,
        "model": whitened.config.model,
        "averaged_weights": trained.averaged,
        "whitening_dim": whitened.config.whitening_dim,
        **facts,
        "largest_score_change": whitened.score_change,
    }
    print(table(facts.items()))
    print(to_json(facts))
    found.left_out.refuse_unreadable()


if __name__ == "__main__":
    run(main)
