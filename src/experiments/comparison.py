# SPDX-License-Identifier: Apache-2.0
"""Several runs on one page: the keys in which they differ, figures with their spread over seeds, curves."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..common.files import to_json, write_text
from ..evaluation.curves import by_epoch, series
from ..evaluation.metrics import METRICS
from ..model_utils.config import load_config, read_yaml
from ..model_utils.keys import Keys
from ..reports import starts
from ..reports.differences import Differing, between, meaning_of
from ..reports.drawing import COLOURS, bands_svg, look
from ..reports.page import render
from ..reports.run import SUMMARY, RunFacts, whole
from ..training.records import read_metrics
from .statistics import difference, spread

CURVES = {
    "eval_top1": "top-1 (%), plain view",
    "loss": "training loss (nats)",
    "eval_loss": "evaluation loss (nats)",
    "lr": "learning rate",
}
_POINTS = 100  # of a curve; more records are averaged
_INPUTS = ("data_path", "pretrained_path")  # keys of the host that decide what a run computes
_BORDERS = {"-": "solid", "--": "dashed", ":": "dotted"}


def read_run(path: Path, config_class_of: Callable[[str], type[Keys]]) -> RunFacts:
    """What a run's folder holds. Keys that this version of the program does not have are left out.

    Raises:
        UserError: it is no run's folder, or a file is damaged.
    """
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path} is not the folder of a run, it holds no config.yaml; give a run's folder")
    keys = read_yaml(path / "config.yaml")
    try:
        config = load_config({}, config_class_of=config_class_of, base=keys, others=True)
    except UserError as error:
        raise UserError(f"{path / 'config.yaml'}: {error}") from error
    metrics = path / "metrics.jsonl"
    run = RunFacts.read(path, config=config, records=read_metrics(metrics) if metrics.exists() else [])
    with whole(path / starts.NAME):
        _cards_of_starts(run)
    with whole(path / SUMMARY):
        _values_of(run), _told(run)
    with whole(metrics):
        [series(by_epoch(run.records), key) for key in CURVES]
    return run


def _told(run: RunFacts) -> dict[str, Any]:
    """What its summary says for a line of the table; nothing before the run has ended."""
    if run.summary is None:
        return {}
    final = run.summary["final"]
    return {
        "figures": {
            name: float(final[name]) for name in METRICS if name == "top1" or final.get(name) is not None
        },
        "machine": run.summary["environment"] | run.summary["device"],
        **{name: run.summary[name] for name in ("epochs", "wall_seconds", "peak_memory_mib")},
    }


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        name: what their folders' names have in common.
        runs: one or more.
        values: by key, what they are trained with; without the seed.
    """

    name: str
    runs: list[RunFacts]
    values: dict[str, Any]

    @property
    def finished(self) -> list[RunFacts]:
        """Those that have ended: the only ones with figures."""
        return [run for run in self.runs if run.summary is not None]


def grouped(runs: Sequence[RunFacts]) -> list[Group]:
    """The runs by what they are trained with, in the order in which they first come."""
    values, members = {}, {}
    for run in runs:
        own = _values_of(run)
        name = to_json(own)
        values[name] = own
        members.setdefault(name, []).append(run)
    names = _told_apart([*members.values()])
    return [Group(name, members[key], values[key]) for name, key in zip(names, members, strict=True)]


def _values_of(run: RunFacts) -> dict[str, Any]:
    config = run.config
    keys = config.portable() | {name: getattr(config, name) for name in _INPUTS}
    cards = _cards_of_starts(run) or ([] if run.summary is None else [run.summary["device"]["cards"]])
    return {name: value for name, value in keys.items() if name != "seed"} | {"cards": max(cards, default=1)}


def _cards_of_starts(run: RunFacts) -> list[int]:
    return [int(start["device"]["cards"]) for start in run.starts]


def _name_of(runs: Sequence[RunFacts]) -> str:
    """`plain-0.4` of plain-0.4-0 and plain-0.4-1; of PLAIN/seed_0 and PLAIN/seed_1 `PLAIN`."""
    names = [run.path.name for run in runs]
    common = "".join(letters[0] for letters in itertools.takewhile(_same, zip(*names)))
    if len(runs) > 1 and any(name[len(common) :][:1].isdigit() for name in names):
        common = re.sub(r"\d+$", "", common)
    if len(runs) > 1:
        common = common.rstrip("-_. ")
    if re.fullmatch(r"(seed)?[-_]?\d*", common):
        return runs[0].path.parent.name if len(runs) > 1 else f"{runs[0].path.parent.name}/{common}"
    return common


def _told_apart(groups: Sequence[Sequence[RunFacts]]) -> list[str]:
    """The name of each group; those that several have get the folder above it, else a number."""
    names = [_name_of(runs) for runs in groups]
    folders = [runs[0].path.parent for runs in groups]
    folders = [folder.parent if folder.name == name else folder for folder, name in zip(folders, names)]
    longer = [f"{folder.name}/{name}" for folder, name in zip(folders, names)]
    return [
        name if names.count(name) == 1
        else long if longer.count(long) == 1
        else f"{name} ({names[: place + 1].count(name)})"
        for place, (name, long) in enumerate(zip(names, longer))
    ]  # fmt: skip


def _same(letters: Sequence[str]) -> bool:
    return len(set(letters)) == 1


def write_comparison(runs: Sequence[RunFacts], path: Path) -> list[dict[str, Any]]:
    """Writes the page, and returns the figures of each group as plain values for JSON.

    Raises:
        UserError: the page would be too large, or it cannot be written.
    """
    groups = grouped(runs)
    rows = [_row(group, groups[0]) for group in groups]
    names = [name for name in METRICS if any(name in row["figures"] for row in rows)]
    text = render(
        "comparison.html",
        groups=groups,
        rows=rows,
        several=any(row["finished"] > 1 for row in rows),
        keys=[_key(place) for place in range(len(groups))],
        metrics={name: METRICS[name] for name in names},
        differing=between([group.values for group in groups], meanings=_meanings(groups)),
        machines=_machines(groups),
        curves=[_curve(groups, key) for key in CURVES],
    )
    write_text(path, text)
    return rows


def _row(group: Group, base: Group) -> dict[str, Any]:
    """The figures of one line; the difference is that of top-1 to the first line, with Welch's interval."""
    told = [_told(run) for run in group.finished]
    seeds = Counter(sorted(run.config.seed for run in group.runs))
    names = [name for name in METRICS if told and all(name in one["figures"] for one in told)]
    figures = {name: asdict(spread([one["figures"][name] for one in told])) for name in names}
    top1, others = ([_told(run)["figures"]["top1"] for run in of.finished] for of in (group, base))
    compared = asdict(difference(top1, others)) if top1 and others and group is not base else None
    return {
        "name": group.name,
        "runs": len(group.runs),
        "finished": len(told),
        "seeds": [*seeds.elements()],
        "repeats": [
            f"seed {seed} {'twice' if count == 2 else f'{count} times'}"
            for seed, count in seeds.items()
            if count > 1
        ],
        "figures": figures,
        "difference": compared,
        "epochs": told[0]["epochs"] if told else None,
        "wall_seconds": float(np.mean([one["wall_seconds"] for one in told])) if told else None,
        "peak_memory_mib": max((one["peak_memory_mib"] for one in told), default=None),
    }


def _key(place: int) -> str:
    """The style of a line's sign in the table, as it is drawn."""
    colour, dashes = look(place)
    return f"border-top-color: var(--{COLOURS[colour]}); border-top-style: {_BORDERS[dashes]}"


def _meanings(groups: Sequence[Group]) -> dict[str, str]:
    classes = {type(run.config) for group in groups for run in group.runs}
    meanings = {name: meaning_of(of, name) for of in classes for name in of.model_fields}
    return meanings | {"cards": "cards that train together"}


def _machines(groups: Sequence[Group]) -> list[Differing]:
    """On what runs were trained, where it is not the same for all; several of a group side by side."""
    found = [[_told(run)["machine"] for run in group.finished] for group in groups]
    rows = []
    for name in dict.fromkeys(name for of_group in found for one in of_group for name in one):
        values = [dict.fromkeys(str(one.get(name)) for one in of_group) for of_group in found]
        if len({value for of_group in values for value in of_group}) > 1:
            rows.append(Differing(name, tuple(", ".join(of_group) or None for of_group in values), ""))
    return rows


def _curve(groups: Sequence[Group], key: str) -> Any:
    curves = [mean_curve([run.records for run in group.finished or group.runs], key) for group in groups]
    return bands_svg(curves, label=CURVES[key], name=key)


def mean_curve(runs: Sequence[Sequence[dict[str, Any]]], key: str) -> np.ndarray:
    """(places, 3): epoch, mean over the runs and sample standard deviation of what records have under `key`.

    Records are matched by their number, as runs of one config have theirs at the same places, up to the last
    that all runs have. Of many, neighbours are averaged in each run first.
    """
    curves = [np.column_stack(series(by_epoch(records), key)) for records in runs]
    length = min(map(len, curves))
    width = -(-length // _POINTS) or 1
    kept = length - length % width
    blocks = np.stack([curve[length - kept : length].reshape(-1, width, 2).mean(axis=1) for curve in curves])
    sd = blocks[:, :, 1].std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(kept // width)
    return np.column_stack([blocks.mean(axis=0), sd])
