"""Evaluate a checkpoint: every test image once, on any batch size. The last line is one JSON object.

python eval.py --checkpoint_path runs/RUN/checkpoints/best.ckpt --data_path data
python eval.py --checkpoint_path runs/RUN/checkpoints/best.ckpt --flip_tta true
"""

from src.model_utils.door import checkpoint_parser, run


def main(arguments):
    flags = checkpoint_parser(__doc__)
    own, rest = flags.parse_known_args(arguments)

    from src.model_utils.files import to_json
    from src.trained import open_from_flags
    from src.training.loop import evaluate_network

    trained = open_from_flags(own, rest)
    config, device = trained.recipe.config, trained.device
    batches = trained.recipe.eval_batches(rank=device.rank, size=device.size)
    trained.checkpoint.check_classes(batches.class_names)
    evaluation = evaluate_network(
        trained.network,
        trained.recipe.inputs(),
        batches,
        num_classes=len(trained.card.class_names),
        flip_tta=config.flip_tta,
        size=device.size,
    )
    if device.rank == 0:
        facts = {
            "checkpoint": own.checkpoint_path,
            "model": config.model,
            "step": trained.checkpoint.meta["step"],
            "averaged_weights": trained.averaged,
            "flip_tta": config.flip_tta,
        }
        print(to_json(facts | evaluation.metrics))
    return 0


if __name__ == "__main__":
    run(main)
