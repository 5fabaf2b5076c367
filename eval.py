# SPDX-License-Identifier: Apache-2.0
"""Evaluate a run's best checkpoint, or another one: every image once. The last line is one JSON object.

python eval.py --checkpoint_path runs/RUN --data_path data
python eval.py --checkpoint_path runs/RUN/checkpoints/last.ckpt --predictions out.csv --pictures out
python eval.py --checkpoint_path runs/RUN --data_path more/test    class folders that it was not trained on
python eval.py --checkpoint_path runs/RUN --task retrieval --data_path holidays
python eval.py --checkpoint_path model.onnx --task retrieval --data_path holidays

On the data of the training, the test images are evaluated, or the share that was held out. On other class
folders, which need not have all of the classes, every image is evaluated, unless there is a folder val or
test, or --val_fraction is given.
"""

from src.common.cli import checkpoint_parser, run
from src.key_help import key_help
from src.model_utils.modelarts import on_modelarts


def main(arguments):
    flags = checkpoint_parser(__doc__, keys=key_help, also="; for retrieval also an .onnx")
    flags.add_argument("--task", choices=("classification", "retrieval"), default="classification")
    answers = flags.add_argument_group("classification")
    answers.add_argument("--predictions", metavar="CSV", help="file for the prediction of each image")
    answers.add_argument(
        "--pictures", metavar="DIR", help="folder for confusion matrix, recall of each class, worst mistakes"
    )
    sets = flags.add_argument_group("retrieval", "with --data_path FOLDER, see src/retrieval/sets.py")
    sets.add_argument("--protocol", help="holidays, groups ... (default: auto, by the folder's files)")
    sets.add_argument("--rotations", metavar="FILE", help="holidays: YAML file NAME: DEGREES clockwise")
    sets.add_argument("--distractors", metavar="DIR", help="images that are wrong for every query")
    sets.add_argument("--sheet", metavar="PNG", help="picture of queries and results, worst mistakes first")
    own, rest = flags.parse_known_args(arguments)

    from src.common.files import to_json
    from src.embedders import evaluate_retrieval, refuse_exported
    from src.retrieval.door import check_flags

    check_flags(own, rest)
    if own.task == "retrieval":
        text, figures = evaluate_retrieval(own, rest)
    else:
        refuse_exported(own.checkpoint_path)
        from src.evaluation.door import evaluate_from_flags
        from src.trained import open_from_flags

        trained = open_from_flags(own, rest, with_data=True)
        text, figures = evaluate_from_flags(trained, own)
        figures = trained.facts | figures
        if trained.device.rank:
            return
    print(f"{text}\n{to_json(figures)}")


if __name__ == "__main__":
    run(main, around=on_modelarts())
