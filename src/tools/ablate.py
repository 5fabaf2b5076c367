# SPDX-License-Identifier: Apache-2.0
"""Which recipe is better, and by how much: trains each with several seeds, and compares.

python -m src.tools.ablate configs/resnet9/cpu/*.yaml --seeds 3 --data_path data --output_path runs/cpu
python -m src.tools.ablate configs/resnet9/cpu/*.yaml --output_path runs/cpu --table
python -m src.tools.ablate A.yaml B.yaml --seeds 5 --baseline B --views flip,six:0.25 --epochs 8

Every other --key value goes to all trainings. Seed 0 of all recipes comes first, then seed 1, and so on. A
recipe is known by the name of its file: OUTPUT/NAME/seed_0 is a run of train.py. After an interruption the
same call goes on; finished runs are not repeated. A run whose recipe was edited since is refused. A run that
fails is named and passed over, and the exit code is then 2.

--table writes OUTPUT/ablation.md, .json and .png from the runs that are finished, as a call does at its end.
The last line is the same JSON object.
"""

from ..common.cli import flag_names, parser, run
from ..key_help import key_help

STOPPED = 143


def main(arguments):
    flags = parser(__doc__, keys=key_help)
    flags.usage = "python -m src.tools.ablate CONFIG [CONFIG ...] --seeds N [flags] [--key value ...]"
    flags.add_argument(
        "configs", nargs="+", metavar="CONFIG", help="recipes to compare; no two of one file name"
    )
    flags.add_argument(
        "--seeds", type=int, default=3, help="runs of each recipe, with the seeds 0 to N - 1 (3)"
    )
    flags.add_argument("--output_path", default="runs/ablation", help="folder of all runs (runs/ablation)")
    flags.add_argument(
        "--jobs", type=int, default=1, help="trainings at a time, each on its share of the cores (1)"
    )
    flags.add_argument(
        "--baseline", help="what each recipe is compared with: the name of one, or previous (the first)"
    )
    flags.add_argument(
        "--views",
        default="",
        help="also evaluate with these values of tta, as flip,six:0.25 (0.25: tta_share)",
    )
    flags.add_argument(
        "--table", action="store_true", help="train nothing; write the table of the runs that are finished"
    )
    flags.add_argument("--name", default="ablation", help="name of the table's files (ablation)")
    own, rest = flags.parse_known_args(arguments)
    arms = _arms(own, rest, flag_names(flags))
    names = [arm.name for arm in arms]
    baseline = names[0] if own.baseline is None else own.baseline
    _check(own, baseline, names)
    outcome = None if own.table else _train(own, arms)
    _write(own, arms, baseline)
    if outcome is None:
        return 0
    return STOPPED if outcome.stopped else 2 if outcome.failed else 0


def _arms(own, rest, flags):
    from pathlib import Path

    from ..common.errors import UserError
    from ..experiments.plan import arms_of, keys_of_views
    from ..model_utils.config import load_config, parse_overrides
    from ..optim.keys import with_one_length
    from ..zoo import config_class_of

    keys = with_one_length(parse_overrides(rest))
    for name in ("seed", "run_name", "config_path"):
        if name in keys:
            raise UserError(f"{name}: given, but each run has its own; leave it out")

    def load(path, more=()):
        return load_config(keys | dict(more), config_class_of=config_class_of, config_path=path, flags=flags)

    views = [kind for kind in own.views.split(",") if kind]
    for kind in views:
        tta, share = keys_of_views(kind)
        load(own.configs[0], {"tta": tta, "tta_share": share})
    return arms_of(own.configs, load, output=Path(own.output_path), words=rest, views=views)


def _check(own, baseline, names):
    from ..common.errors import UserError
    from ..experiments.processes import check_jobs

    if own.seeds < 1:
        raise UserError(f"seeds: {own.seeds} given, allowed: a whole number >= 1")
    if baseline not in (*names, "previous"):
        raise UserError(f"baseline: {baseline} given, allowed: previous, or one of {', '.join(names)}")
    check_jobs(own.jobs)


def _train(own, arms):
    import contextlib
    import sys
    from pathlib import Path

    from ..common.errors import UserError
    from ..common.files import LOCK
    from ..common.lock import HeldError, locked
    from ..experiments.processes import work_off

    def say(line):
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(line, file=sys.stderr, flush=True)

    try:
        with locked(Path(own.output_path) / LOCK, timeout=0):
            for arm in arms:
                arm.check()
            runs = [arm.run(seed) for seed in range(own.seeds) for arm in arms]
            return work_off(runs, jobs=own.jobs, say=say)
    except HeldError as error:
        raise UserError(
            f"output_path: {own.output_path} is in use by process {error.pid}; wait for it, or choose another"
        ) from error


def _compute():
    """PFLOP of a run, by its own config and the batches that it had."""
    from ..analysis.compute import compute_of
    from ..common.log import setup_logging
    from ..experiments.plan import keys_of_views
    from ..model_utils.device_adapter import set_up_device
    from ..zoo import create_recipe

    setup_logging(None).setLevel("WARNING")
    set_up_device("CPU")

    def pflop(result, kind):
        tta, share = keys_of_views(kind)
        recipe = create_recipe(result.config).changed(tta=tta, tta_share=share)
        epoch = round(result.batches / result.epochs)
        sizes = {"test_images": result.test_images, "num_classes": result.classes}
        return compute_of(recipe, epoch=epoch, **sizes).pflop

    return pflop


def _write(own, arms, baseline):
    from pathlib import Path

    from ..common.files import to_json, write_json, write_text
    from ..experiments.picture import draw_arms
    from ..experiments.report import as_markdown
    from ..experiments.results import Result, facts_of

    results = {arm.name: [Result.of(run) for run in arm.finished()] for arm in arms}
    facts = facts_of(arms, results, baseline=baseline, compute=_compute())
    text, base = as_markdown(facts), Path(own.output_path) / own.name
    write_json(f"{base}.json", facts)
    write_text(f"{base}.md", text)
    draw_arms(results, f"{base}.png")
    print(f"{text}\n{to_json(facts)}")


if __name__ == "__main__":
    run(main)
