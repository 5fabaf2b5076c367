# SPDX-License-Identifier: Apache-2.0
"""Which figures of benchmarks.inference are enough: the bars, each with its ratio in every round."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.inference_files import TWIN
from benchmarks.inference_layers import STAGES
from benchmarks.record import spread

Figures = Mapping[str, Mapping[str, Mapping[str, Any]]]  # model -> backend -> figures
MEGABYTE = 1e6
BIREAL, PACKED, MINDSPORE = "birealnet18", "packed", ("MindSpore", "MINDIR")
ONNX, INT8 = "onnxruntime float32", "onnxruntime int8"
FOLDED = ("bit_r50x1", "multigrain_resnet18", "multigrain_resnet50")


def bars(found: Figures, *, amx: bool) -> list[dict[str, Any]]:
    """Each bar that can be told from the figures, at batch 1: {"bar", "what", "met", ...}.

    A ratio is how many times as long the other takes: the fastest of several, in the same round.
    """
    compared = [
        (1, "the sixteen binary convolutions", "sixteen", PACKED, "sixteen", ("MindSpore",), 20),
        *(
            (1, f"a layer of {channels} channels", f"{channels} channels", PACKED, f"{channels} channels",
             ("OpenVINO binary",), 1)
            for channels, _ in STAGES
        ),
        (1, "birealnet18", BIREAL, PACKED, BIREAL, MINDSPORE, 8),
        (1, "birealnet18 against its float twin", BIREAL, PACKED, TWIN, (ONNX,), 3.5),
        (1, "birealnet18 against its float twin, of fewer bits", BIREAL, PACKED, TWIN,
         (INT8, "OpenVINO int8", "OpenVINO bfloat16"), 1.5),
        *((3, model, model, INT8, model, (ONNX,), 1.3)
          for model in ("resnet9", "multigrain_resnet18", "multigrain_resnet50")),
    ]  # fmt: skip
    told = [bar for row in compared if (bar := _compared(found, *row))]
    told += [bar for model in FOLDED if (bar := _folded(found, model))]
    if packed := found.get(BIREAL, {}).get(PACKED):
        size, start = packed["file_bytes"] / MEGABYTE, packed["start_seconds"]["median"]
        told.append(_most("size of the packed birealnet18, MB", size, 4.2))
        told.append(_most("first answer of the packed birealnet18, s", start, 2.0))
    for bar in told:
        if amx and "fewer bits" in bar["what"]:
            bar["note"] = "this processor has AMX, for which this bar does not hold"
    return told


def _compared(
    found: Figures, bar: int, what: str, ours: str, backend: str, theirs: str, others: Sequence[str],
    at_least: float,
) -> dict[str, Any] | None:  # fmt: skip
    known = [other for other in others if other in found.get(theirs, {})]
    if backend not in found.get(ours, {}) or not known:
        return None
    rounds = {other: found[theirs][other]["batch_1"]["round_medians"] for other in known}
    best = min(known, key=lambda other: median(rounds[other]))
    ratio = spread([b / a for a, b in zip(found[ours][backend]["batch_1"]["round_medians"], rounds[best])])
    against = {"by": backend, "against": best, "ratio": ratio, "at_least": at_least}
    return {"bar": bar, "what": what, **against, "met": ratio["median"] >= at_least}


def _folded(found: Figures, model: str, at_least: float = 1.2) -> dict[str, Any] | None:
    """How much faster folding makes a MINDIR. Also met where no batch norm at all would not make it so."""
    bar, most = (
        _compared(found, 4, model, model, backend, model, ("MINDIR unfolded",), at_least)
        for backend in ("MINDIR", "MINDIR without norms")
    )
    if bar and most and not most["met"]:
        limit = most["ratio"]["median"]
        bar |= {"met": True, "note": f"without batch norms {limit:.2f} times: folding cannot give more"}
    return bar


def _most(what: str, value: float, at_most: float) -> dict[str, Any]:
    return {"bar": 1, "what": what, "value": round(value, 3), "at_most": at_most, "met": value <= at_most}


def in_words(bar: Mapping[str, Any]) -> str:
    """One line."""
    if "ratio" in bar:
        ratio = bar["ratio"]
        said = (
            f"{bar['what']}: {bar['by']} {ratio['median']:.2f} times as fast as {bar['against']} "
            f"({ratio['min']:.2f} to {ratio['max']:.2f}), at least {bar['at_least']:g}"
        )
    else:
        said = f"{bar['what']}: {bar['value']:g}, at most {bar['at_most']:g}"
    note = f" ({bar['note']})" if "note" in bar else ""
    return f"bar {bar['bar']} {'met    ' if bar['met'] else 'NOT MET'}  {said}{note}"
