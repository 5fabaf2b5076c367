# SPDX-License-Identifier: Apache-2.0
"""The page of one run, report.html in its folder: what it was, what came out, and what it took."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from ..common.errors import UserError
from ..common.files import read_json, write_text
from ..evaluation.calibration import Calibration
from ..evaluation.curves import by_epoch, panels, series
from ..evaluation.drawing import shortened
from ..evaluation.metrics import METRICS, interval, warning_of
from ..evaluation.pictures import confusion_figure
from ..model_utils.keys import Keys
from . import kept, starts
from .differences import from_defaults
from .drawing import FONTS, SHADES, as_svg, bands_svg, calibration_svg, panel_svg
from .page import duration, number, render

NAME = "report.html"
OF_THE_END = ("summary.json", kept.NAME, NAME)  # files that a run has only if it has ended
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
            read_json(path / "summary.json"),
            read_json(path / kept.NAME),
            read_json(path / starts.NAME) or [],
        )


def write_run_page(run: RunFacts, path: Path) -> None:
    """Writes the page. Raises UserError: a file of the run is damaged, or the page cannot be written."""
    with whole(run.path):
        text = render("run.html", **_values(run))
    write_text(path, text)


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Within it, a value that is missing or strange is the one line that the run's files are damaged."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, jinja2.UndefinedError) as error:
        raise UserError(
            f"{path}: summary.json, {kept.NAME}, {starts.NAME} or metrics.jsonl is damaged ({error!r}); "
            "restore it, or remove it"
        ) from error


def _values(run: RunFacts) -> dict[str, Any]:
    """What the template run.html shows."""
    return {
        "name": run.path.name,
        "run": run,
        "tiles": _tiles(run),
        "warning": warning_of(run.summary["final"]["count"]) if run.summary is not None else None,
        "differing": from_defaults(run.config),
        "curves": [
            (panel.title, panel_svg(panel, f"curve {place}"))
            for place, panel in enumerate(panels(thinned(run.records)))
        ],
        **_of_evaluation(run.evaluation),
        "costs": _costs(run),
    }


def _tiles(run: RunFacts) -> list[tuple[str, str, str]]:
    """The figures at the top: title, value, and a note."""
    summary = run.summary
    if summary is None:
        last = run.records[-1] if run.records else {"epoch": 0}
        return [("epoch", number(float(last["epoch"])), "of the last record: the run has not ended")]
    final, best = summary["final"], summary["best"]
    low, high = interval(final["top1"], final["count"])
    tiles = [
        (METRICS[name].title, METRICS[name].text(value), _plain_view(name, final))
        for name, value in final.items()
        if name in METRICS and value is not None
    ]
    tiles.append(("95 % interval of top-1", f"{low:.2f} to {high:.2f} %", f"{final['count']:,} test images"))
    if best:
        tiles.append(("best top-1", METRICS["top1"].text(best["top1"]), f"at epoch {best['epoch']:.4g}"))
    tiles.append(("parameters", number(summary["parameters"]), summary["model"]))
    tiles.append(("training", f"{summary['epochs']:.4g} epochs", f"{summary['updates']:,} updates"))
    tiles.append(("wall time", duration(summary["wall_seconds"]), "with evaluation and saving"))
    return tiles


def _plain_view(name: str, final: dict[str, Any]) -> str:
    plain = final.get(f"{name}_plain")
    return "" if plain is None else f"plain view {METRICS[name].text(plain)}"


def thinned(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All evaluation records, and of many training records one of so many, up to the last."""
    training = [place for place, record in enumerate(records) if "loss" in record]
    step = -(-len(training) // _RECORDS) or 1
    chosen = {*training[::-1][::step]}
    return [record for place, record in enumerate(records) if "loss" not in record or place in chosen]


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
            "file": picture["file"][-_LETTERS:],
            "label": names[picture["label"]],
            "prediction": names[picture["prediction"]],
        }
        for picture in pictures
    ]


def _costs(run: RunFacts) -> dict[str, Any]:
    """Time and memory; the share of training is that of the batches, by their speed."""
    records = by_epoch(run.records)
    seconds, images = 0.0, 0
    for record in records:
        if record.get("images_per_second"):
            seconds += (record["images"] - images) / record["images_per_second"]
            images = record["images"]
    summary = run.summary or {}
    epochs, speeds = series(by_epoch(thinned(run.records)), "images_per_second")
    curve = np.column_stack([epochs, speeds, np.zeros_like(speeds)])
    return {
        "curve": bands_svg([curve], label="images/s", name="speed"),
        "training": seconds or None,
        "wall": summary.get("wall_seconds"),
        "speed": summary.get("images_per_second"),
        "memory": summary.get("peak_memory_mib"),
    }
