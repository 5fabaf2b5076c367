# SPDX-License-Identifier: Apache-2.0
"""Running statistics of batch normalisation, computed anew for a finished checkpoint ("precise BN").

python -m src.tools.reestimate_bn --checkpoint_path runs/RUN/checkpoints/best.ckpt --output precise.ckpt

It uses the training batches that follow the checkpoint's last step, as `bn_reestimation_batches` does after a
training. The output is the same checkpoint with the new statistics. The last line is one JSON object with the
figures before and after.
"""

from ..common.cli import checkpoint_parser, run
from ..key_help import key_help


def main(arguments):
    flags = checkpoint_parser(__doc__, keys=key_help)
    flags.add_argument("--output", required=True, help="the .ckpt file to write")
    flags.add_argument("--batches", type=int, default=100, help="training batches on each card (100)")
    own, rest = flags.parse_known_args(arguments)

    import contextlib

    import mindspore as ms

    from ..checkpoint.file import AVERAGED, write_checkpoint
    from ..checkpoint.formats import check_output
    from ..common.errors import UserError
    from ..common.files import to_json
    from ..common.table import table
    from ..evaluation.evaluate import evaluate_network
    from ..evaluation.metrics import METRICS, in_words
    from ..trained import open_from_flags
    from ..training.precise_bn import reestimate_bn

    output = check_output(own.output)
    if own.batches < 1:
        raise UserError(f"batches: {own.batches} given, allowed: a whole number >= 1")
    trained = open_from_flags(own, rest, with_data=True)
    recipe, network, device, checkpoint = trained.recipe, trained.network, trained.device, trained.checkpoint
    shard = {"rank": device.rank, "size": device.size}
    train_batches, eval_batches = recipe.train_batches(**shard), recipe.eval_batches(**shard)
    for batches in (train_batches, eval_batches):
        checkpoint.check_classes(batches.class_names)

    def evaluated():
        return evaluate_network(
            network,
            recipe.inputs(),
            eval_batches,
            num_classes=len(eval_batches.class_names),
            tta=recipe.config.tta,
            tta_share=recipe.config.tta_share,
            size=device.size,
        ).metrics

    before, start = evaluated(), checkpoint.meta["step"]
    with contextlib.closing(train_batches.batches(start, start + own.batches)) as batches:
        reestimate_bn(network, recipe.inputs(), batches, size=device.size)
    after = evaluated()
    if device.rank:
        return
    prefix = AVERAGED if trained.averaged else ""
    arrays = checkpoint.arrays | {prefix + p.name: p.asnumpy() for p in network.get_parameters()}
    parameters = [ms.Parameter(ms.Tensor(value), name=name) for name, value in arrays.items()]
    progress = {**checkpoint.meta.get("progress", {}), "bn_reestimated": True}
    write_checkpoint(output, parameters, {**checkpoint.meta, "progress": progress})
    facts = {
        "checkpoint": str(checkpoint.path),
        "output": own.output,
        "model": recipe.config.model,
        "step": start,
        "batches": own.batches,
        "averaged_weights": trained.averaged,
    }
    print(table([*facts.items(), ("before", in_words(before)), ("after", in_words(after))]))
    for when, figures in (("before", before), ("after", after)):
        facts |= {f"{name}_{when}": value for name, value in figures.items() if name in METRICS}
    print(to_json(facts))


if __name__ == "__main__":
    run(main)
