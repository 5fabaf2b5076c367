# SPDX-License-Identifier: Apache-2.0
"""The page of one run, report.html in its folder: what it was, what came out, and what it took."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..common.errors import UserError
from ..common.files import read_json, write_text
from ..evaluation.calibration import Calibration
from ..evaluation.curves import by_epoch, panels, series, training_seconds
from ..evaluation.drawing import shortened
from ..evaluation.metrics import METRICS, interval, of_plain_view, warning_of
from ..evaluation.pictures import confusion_figure, end_of_path
from ..model_utils.keys import Keys
from . import kept, starts
from .differences import from_defaults
from .drawing import FONTS, SHADES, as_svg, bands_svg, calibration_svg, panel_svg
from .page import duration, number, render

NAME = "report.html"
SUMMARY = "summary.json"
OF_THE_END = (SUMMARY, kept.NAME, NAME)  # files that a run has only if it has ended
_RECORDS = 400  # training records that are drawn
_CLASSES = 200  # rows of the table of classes
_CONFUSED = 10
_LETTERS = 60  # of a class name, and of the end of a file's


@dataclass(frozen=True)
class RunFacts:
    """What a run's folder holds. A run that has not ended has no summary and no evaluation.

    Attributes:
        path: the folder.
        config: of the run.
        records: of metrics.jsonl.
        summary: of summary.json.
        evaluation: of evaluation.json.
        starts: of starts.json.
    """

    path: Path
    config: Keys
    records: list[dict[str, Any]]
    summary: dict[str, Any] | None
    evaluation: dict[str, Any] | None
    starts: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path, *, config: Keys, records: list[dict[str, Any]]) -> "RunFacts":
        """Reads what is not given. Raises UserError: a file cannot be read, or is no JSON."""
        return cls(
            path.absolute(),
            config,
            records,
            read_json(path / SUMMARY),
            read_json(path / kept.NAME),
            read_json(path / starts.NAME) or [],
        )


def write_run_page(run: RunFacts, path: Path) -> None:
    """Writes the page. Raises UserError: a file of the run is damaged, or the page cannot be written."""
    write_text(path, render("run.html", **_values(run)))


@contextmanager
def whole(file: Path) -> Iterator[None]:
    """Within it, a value that is missing or strange is the one line that this file of a run is damaged."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # Without its page's files a run is whole, not without its records.
        mend = (
            "restore it, or remove it" if file.name in (kept.NAME, starts.NAME) else "restore it from a copy"
        )
        raise UserError(f"{file} is damaged ({error!r}); {mend}") from error


def _values(run: RunFacts) -> dict[str, Any]:
    """What the template run.html shows."""
    with whole(run.path / SUMMARY):
        of_summary = _of_summary(run)
    with whole(run.path / "metrics.jsonl"):
        drawn, step, count = thinned(run.records)
        of_records = {
            "curves": [
                (panel.title, panel_svg(panel, f"curve {place}")) for place, panel in enumerate(panels(drawn))
            ],
            "drawn": f"One of {step} of {count:,} training records is drawn." if step > 1 else "",
            **_of_speed(run, drawn),
        }
        if run.summary is None:
            epoch = float(run.records[-1]["epoch"]) if run.records else 0.0
            of_summary["tiles"] = [("epoch", number(epoch), "of the last record: the run has not ended")]
    with whole(run.path / kept.NAME):
        of_evaluation = _of_evaluation(run.evaluation)
    with whole(run.path / starts.NAME):
        of_starts = [_start(start) for start in run.starts]
    return {
        "name": run.path.name,
        "run": run,
        "differing": from_defaults(run.config),
        "starts": of_starts,
        **of_summary,
        **of_records,
        **of_evaluation,
    }


def _of_summary(run: RunFacts) -> dict[str, Any]:
    """What its summary says; nothing of a run that has not ended."""
    summary = run.summary
    if summary is None:
        costs = dict.fromkeys(("wall", "speed", "memory"), number(None))
        return {"ended": False, "warning": None, "damaged": None, "cards": 1, "costs": costs}
    device, damaged = summary["device"], summary["damaged_images"]
    cards = int(device["cards"])
    return {
        "ended": True,
        "tiles": _tiles(summary, run.config.best_metric),
        "warning": warning_of(summary["final"]["count"]),
        "damaged": [int(damaged[split]) for split in ("train", "test")] if any(damaged.values()) else None,
        "cards": cards,
        "device": f"{device['target']}, {cards} {'process' if cards == 1 else 'processes'}",
        "environment": [*summary["environment"].items()],
        "costs": {
            "wall": duration(summary["wall_seconds"]),
            "speed": number(summary["images_per_second"], 1),
            "memory": number(summary["peak_memory_mib"]),
        },
    }


def _tiles(summary: dict[str, Any], best_metric: str) -> list[tuple[str, str, str]]:
    """The figures at the top: title, value, and a note."""
    final, best = summary["final"], summary["best"]
    low, high = interval(final["top1"], final["count"])
    tiles = [
        (METRICS[name].title, METRICS[name].text(value), _plain_view(name, final))
        for name, value in final.items()
        if name in METRICS and value is not None
    ]
    tiles.append(("95 % interval of top-1", f"{low:.2f} to {high:.2f} %", f"{final['count']:,} test images"))
    if best:
        metric = METRICS[best_metric]
        note = f"chosen by {metric.title}, at epoch {best['epoch']:.4g}"
        tiles.append(("best", metric.text(of_plain_view(best)[best_metric]), note))
    tiles.append(("parameters", number(summary["parameters"]), summary["model"]))
    tiles.append(("training", f"{summary['epochs']:.4g} epochs", f"{summary['updates']:,} updates"))
    tiles.append(("wall time", duration(summary["wall_seconds"]), "with evaluation and saving"))
    return tiles


def _start(start: dict[str, Any]) -> dict[str, Any]:
    device, environment = start["device"], start["environment"]
    return {
        "date": start["date"],
        "epoch": f"{start['epoch']:.4g}",
        "images": number(start["images"]),
        "batch": number(start["batch"]),
        "device": f"{device['cards']} × {device['target']}",
        "processor": f"{environment['cpu']}, {environment['cpu_count']} cores",
        "mindspore": environment["mindspore"],
    }


def _plain_view(name: str, final: dict[str, Any]) -> str:
    plain = final.get(f"{name}_plain")
    return "" if plain is None else f"plain view {METRICS[name].text(plain)}"


def thinned(records: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    """All evaluation records, and of many training records one of so many, up to the last.

    Those whose loss is not finite stay: they are counted in the picture.

    Returns:
        The records, of how many training records one is kept, and how many there are.
    """
    training = [place for place, record in enumerate(records) if "loss" in record]
    step = -(-len(training) // _RECORDS) or 1
    chosen = {*training[::-1][::step]}
    kept = [
        record
        for place, record in enumerate(records)
        if place in chosen or (loss := record.get("loss")) is None or not math.isfinite(loss)
    ]
    return kept, step, len(training)


def _of_evaluation(facts: dict[str, Any] | None) -> dict[str, Any]:
    if facts is None:
        return {"classes": None}
    names = [shortened(name, _LETTERS) for name in facts["class_names"]]
    images, right = np.array(facts["images"]), np.array(facts["right"])
    confusion = None if facts["confusion"] is None else np.array(facts["confusion"])
    calibration = Calibration(**{name: np.array(values) for name, values in facts["calibration"].items()})
    return {
        "of": facts["of"],
        "classes": _classes(names, images, right, confusion),
        "class_count": len(names),
        "confusion": None if confusion is None else _confusion_svg(confusion, facts["class_names"]),
        "confused": [] if confusion is None else _confused(names, images, confusion),
        "calibration": calibration_svg(calibration, "calibration"),
        "calibration_error": calibration.error,
        "pictures": [
            ("Worst", "The wrong predictions with the highest loss.", _shown(facts["worst"], names)),
            ("Best", "The right predictions with the lowest loss.", _shown(facts["best"], names)),
        ],
    }


def _confusion_svg(confusion: np.ndarray, class_names: Sequence[str]) -> Markup:
    names = [shortened(name) for name in class_names]
    figure = confusion_figure(confusion, names, fonts=FONTS, colours=SHADES, headroom=0.1)
    return as_svg(figure, "confusion")


def _classes(
    names: Sequence[str], images: np.ndarray, right: np.ndarray, confusion: np.ndarray | None
) -> list[dict[str, Any]]:
    """Recall and precision of the classes with images, the lowest recall first; of many the lowest alone."""
    known = np.flatnonzero(images)
    recall = 100 * right[known] / images[known]
    predicted = None if confusion is None else confusion.sum(axis=0)
    rows = []
    for place in np.argsort(recall, kind="stable")[:_CLASSES]:
        label = known[place]
        said = None if predicted is None else int(predicted[label])
        rows.append(
            {
                "name": names[label],
                "images": int(images[label]),
                "right": int(right[label]),
                "recall": float(recall[place]),
                "precision": 100 * float(right[label]) / said if said else None,
            }
        )
    return rows


def _confused(names: Sequence[str], images: np.ndarray, confusion: np.ndarray) -> list[tuple[Any, ...]]:
    """The pairs of classes that are confused most: true, predicted, images, share of the true class."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSED]
    pairs = [divmod(int(place), len(names)) for place in order]
    return [
        (names[true], names[said], int(wrong[true, said]), 100 * float(wrong[true, said] / images[true]))
        for true, said in pairs
        if wrong[true, said]
    ]


def _shown(pictures: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        picture
        | {
            "url": picture["picture"] if str(picture["picture"]).startswith("data:image/") else "",
            "file": end_of_path(picture["file"], _LETTERS),
            "probability": float(picture["probability"]),
            "label": names[picture["label"]],
            "prediction": names[picture["prediction"]],
        }
        for picture in pictures
    ]


def _of_speed(run: RunFacts, drawn: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The time that the batches took (images / speed, summed), and their speed over the run."""
    seconds = training_seconds(run.records)
    epochs, speeds = series(by_epoch(drawn), "images_per_second")
    curve = np.column_stack([epochs, speeds, np.zeros_like(speeds)])
    return {
        "training": duration(seconds[-1] if seconds else None),
        "speeds": bands_svg([curve], label="images/s", name="speed"),
    }
