"""Export a checkpoint for inference, and compare the file with the network. The last line is one JSON object.

python export.py --checkpoint_path runs/RUN/checkpoints/best.ckpt --file_format MINDIR
python export.py --checkpoint_path runs/RUN/checkpoints/best.ckpt --file_format MINDIR --file_name OUT
"""

from pathlib import Path

from src.model_utils.door import checkpoint_parser, run


def main(arguments):
    flags = checkpoint_parser(__doc__)
    flags.add_argument("--file_format", default="MINDIR", help="MINDIR, or AIR on Ascend (default MINDIR)")
    flags.add_argument("--file_name", metavar="OUT", help="the file to write (default: in the run's folder)")
    flags.add_argument(
        "--export_batch_size", type=int, default=1, help="images a call of the file (default 1)"
    )
    own, rest = flags.parse_known_args(arguments)

    from src.deploy.export import export_model
    from src.model_utils.files import to_json
    from src.trained import open_from_flags, some_images

    trained = open_from_flags(own, rest)
    folder = Path(own.checkpoint_path).resolve().parent
    run_dir = folder.parent if own.checkpoint_path.endswith(".ckpt") else folder
    report = export_model(
        trained.network,
        own.file_name or run_dir / trained.card.model,
        file_format=own.file_format,
        card=trained.card,
        batch_size=own.export_batch_size,
        real_images=some_images(trained.recipe),
    )
    print(to_json(report))
    return 0


if __name__ == "__main__":
    run(main)
