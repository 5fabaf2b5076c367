"""PCA whitening of a MultiGrain checkpoint's embedding, by a folder of pictures. Class scores do not change.

python -m src.tools.whiten --checkpoint_path runs/RUN/checkpoints/best.ckpt --images DIR --output white.ckpt
python -m src.tools.whiten --checkpoint_path best.ckpt --images DIR --output white.ckpt --eval_image_size 500

The pictures need no labels; the official whitening took 20,000. They are shown whole, their longer side
`eval_image_size`; p* of that size is chosen first (src.tools.choose_p) and given as `eval_pooling_exponent`.
Fewer than the embedding has dimensions want --regularisation. The output holds the network alone, of the
averaged weights where kept, with its config and the keys given here; eval.py, export.py and the search take
it as any checkpoint. The last line is one JSON object.
"""

from ..common.cli import checkpoint_parser, run

COMPARED = 8  # pictures whose logits are compared
TOLERANCE = 1e-3  # of the largest logit


def main(arguments):
    flags = checkpoint_parser(__doc__)
    flags.add_argument("--images", required=True, help="a folder of pictures, to any depth")
    flags.add_argument("--output", required=True, help="the .ckpt file to write")
    flags.add_argument(
        "--regularisation", type=float, default=0.0, help="share of the mean variance added to each (0)"
    )
    own, rest = flags.parse_known_args(arguments)

    import dataclasses
    import logging
    from functools import partial

    import mindspore as ms
    import numpy as np

    from ..checkpoint.file import write_checkpoint
    from ..checkpoint.formats import check_output
    from ..checkpoint.weights import load_weights
    from ..common.errors import UserError
    from ..common.files import to_json
    from ..data.decode import decode
    from ..data.geometry import resize
    from ..deploy.embedding import Embedder
    from ..deploy.images import find_images
    from ..multigrain.network import MultiGrain
    from ..multigrain.whitening import Extended, fit_pca, whitened_weights
    from ..trained import open_from_flags
    from ..zoo import create_recipe

    output = check_output(own.output)
    if not 0 <= own.regularisation < float("inf"):
        raise UserError(f"regularisation: {own.regularisation:g} given, allowed: a number >= 0")
    files = find_images([own.images])
    trained = open_from_flags(own, rest)
    recipe, network = trained.recipe, trained.network
    if not isinstance(network, MultiGrain):
        raise UserError(
            f"checkpoint {own.checkpoint_path} is of {recipe.config.model}; give one of MultiGrain"
        )
    if recipe.config.whitening_dim:
        raise UserError(f"checkpoint {own.checkpoint_path} is whitened already; give the one before that")

    skipped = []

    def skip(path, error):
        skipped.append(path)
        logging.getLogger("quartet").warning("left out: %s", error)

    plain = {p.name: p.asnumpy() for p in network.get_parameters()}  # another cell around it renames them
    embedder = Embedder.from_trained(dataclasses.replace(trained, network=Extended(network)))
    embedded = dict(embedder.embed(((path, partial(decode, path)) for path in files), skip=skip))
    if not embedded:
        raise UserError(f"images: none of the {len(files)} files in {own.images} can be read")
    whitening = fit_pca(np.stack(list(embedded.values())), regularisation=own.regularisation)
    whitened = whitened_weights(plain, whitening)
    config = recipe.config.model_copy(update={"whitening_dim": len(whitening.mean)})

    side = recipe.image_size
    some = np.stack([resize(decode(path), side, side, "area") for path in list(embedded)[:COMPARED]])
    images = recipe.inputs()(ms.Tensor(some))

    def logits(recipe, arrays):
        network = recipe.network(num_classes=len(trained.card.class_names))
        load_weights(network, arrays)
        return network.set_train(False)(images).asnumpy()

    before, after = logits(recipe, plain), logits(create_recipe(config), whitened)
    error = float(np.abs(after - before).max() / np.abs(before).max())
    if not error <= TOLERANCE:
        raise UserError(
            f"images: whitened, the class scores change by {error:.2g} of the largest, and {own.output} is "
            "not written; give more pictures, or a larger --regularisation"
        )
    if trained.device.rank == 0:
        facts = {
            "images": len(embedded),
            "skipped": len(skipped),
            "image_size": side,
            "regularisation": own.regularisation,
        }
        meta = trained.checkpoint.meta | {"config": config.model_dump(mode="json"), "whitening": facts}
        meta["network"] = list(whitened)
        parameters = [ms.Parameter(ms.Tensor(value), name=name) for name, value in whitened.items()]
        write_checkpoint(output, parameters, meta)
        facts = {
            "checkpoint": own.checkpoint_path,
            "output": own.output,
            "model": config.model,
            "averaged_weights": trained.averaged,
            "whitening_dim": config.whitening_dim,
            **facts,
            "largest_score_change": error,
        }
        print(to_json(facts))


if __name__ == "__main__":
    run(main)
