"""Evaluate a checkpoint: every image once, on any batch size. The last line is one JSON object.

python eval.py --checkpoint_path runs/RUN/checkpoints/best.ckpt --data_path data
python eval.py --checkpoint_path runs/RUN/checkpoints/best.ckpt --flip_tta true
python eval.py --checkpoint_path runs/RUN/checkpoints/best.ckpt --task retrieval --data_path holidays
"""

from src.common.cli import checkpoint_parser, run


def main(arguments):
    flags = checkpoint_parser(__doc__)
    flags.add_argument("--task", choices=("classification", "retrieval"), default="classification")
    sets = flags.add_argument_group("retrieval", "with --data_path FOLDER, see src/data/retrieval_sets.py")
    sets.add_argument("--protocol", help="holidays, groups ...; auto, the default, looks")
    sets.add_argument("--rotations", metavar="FILE", help="holidays: YAML lines NAME: DEGREES, clockwise")
    sets.add_argument("--distractors", metavar="DIR", help="images that are wrong for every query")
    sets.add_argument("--sheet", metavar="PNG", help="queries and their results, the worst mistakes first")
    own, rest = flags.parse_known_args(arguments)

    from src.common.files import to_json
    from src.deploy import retrieval
    from src.evaluation.evaluate import evaluate_network
    from src.trained import open_from_flags

    retrieval.check_flags(own, rest)
    trained = open_from_flags(own, rest, headless=own.task == "retrieval")
    config, device = trained.recipe.config, trained.device
    facts = {
        "checkpoint": own.checkpoint_path,
        "model": config.model,
        "step": trained.checkpoint.meta["step"],
        "averaged_weights": trained.averaged,
    }
    if own.task == "retrieval":
        found = retrieval.evaluate_from_flags(trained, own)
        print(to_json(facts | found.metrics), flush=True)
        retrieval.draw(found, own.sheet)
        return 0
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
        print(to_json(facts | {"flip_tta": config.flip_tta} | evaluation.metrics))
    return 0


if __name__ == "__main__":
    run(main, cloud=True)
