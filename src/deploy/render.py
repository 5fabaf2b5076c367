# SPDX-License-Identifier: Apache-2.0
"""What `classify` found, for a terminal and for programs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..common.table import as_text, table
from ..evaluation.metrics import METRICS
from .classify import Classified

_NAMES = {
    "mindspore": "MindSpore",
    "lite": "MindSpore Lite",
    "onnxruntime": "ONNX Runtime",
    "packed": "1-bit kernels",
}


def render_json(found: Classified) -> str:
    """One line of JSON: {"results", "skipped", "performance"}, and "accuracy" where there are labels."""
    answer = {"results": found.results, "skipped": found.skipped, "performance": found.performance}
    return json.dumps(answer if found.accuracy is None else {**answer, "accuracy": found.accuracy})


def render_text(found: Classified, *, summary: bool = False) -> str:
    """A line a file, a line a class, then the skipped files, and of several images the figures.

    Args:
        summary: the skipped files and the figures alone, of one image too.
    """
    lines = []
    for result in () if summary else found.results:
        label = f"  ({result['label']})" if "label" in result else ""
        lines.append(result["file"] + label)
        lines += [f"  {100 * one['probability']:6.2f} %  {one['class']}" for one in result["predictions"]]
    lines += [f"skipped {file['file']}: {file['reason']}" for file in found.skipped]
    if found.results and (summary or len(found.results) > 1):
        lines += [*([""] if lines else []), *_figures(found.performance)]
    if found.accuracy and found.accuracy["count"]:
        lines.append(_accuracy(found.accuracy))
    elif summary:
        lines.append("accuracy     not measured: no labels")
    return as_text(lines)


def render_export(report: dict[str, Any]) -> str:
    """The report of an export as a table: the files, their sizes, and how near they are to the network."""
    rows = [
        ("folder", report["folder"]),
        ("format", f"{report['file_format']}, {report['input_type']} input, {report['compute_type']} inside"),
    ]
    for one in report["files"]:
        size = one["batch_size"] or "any size"
        rows.append(("file", f"{Path(one['path']).name}  (batches of {size}, {one['bytes']:,} bytes)"))
    folding = report["folding"]
    rows.append(("folding", _distance(folding, "the network as trained") if folding else "none"))
    if report["file"]:
        images = sum(report["inputs"].values())
        rows.append(("parity", f"{_distance(report['file'], 'the network')}, over {images} images"))
    else:
        rows.append(("parity", "not compared: such a file cannot be run here"))
    if embedding := report["embedding"]:
        rows.append(("embedding", _distance(embedding, "the network's", "value")))
    if top1 := report["top1_agreement"]:
        rows.append(
            ("top-1", f"as by the network in float32 for {top1['agree']} of {top1['images']} test images")
        )
    if report["quantisation"]:
        rows += _quantisation(report["quantisation"])
    return table(rows)


def _quantisation(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What int8 changes. The rows above it are of the file before."""
    used, compared, speed = found["calibration"], found["compared"], found["images_per_second"]
    size, accuracy = found["bytes"], found["accuracy"]
    accepted = "" if found["passed"] else ", accepted"
    yield (
        "int8",
        f"calibrated on {used['images']} pictures of {used['folder']}; before it {size['float32']:,} bytes",
    )
    yield (
        "agreement",
        f"as by float32 for {compared['agree']} of {compared['images']} other pictures, "
        f"{compared['agreement']:.2%} (limit {compared['limit']:.0%}{accepted})",
    )
    if accuracy:
        yield "accuracy", f"{accuracy['int8']:.2f} %, by float32 {accuracy['float32']:.2f} %"
    yield "speed", f"{speed['int8']:,.0f} images/s, by float32 {speed['float32']:,.0f}, one after the other"
    if skipped := len(used["skipped"] + compared["skipped"]):
        first = (used["skipped"] + compared["skipped"])[0]
        yield "skipped", f"{skipped} that cannot be read, as {first['file']} ({first['reason']})"


def _distance(compared: dict[str, Any], other: str, unit: str = "logit") -> str:
    turned = ", as signs turned" if compared["relative_difference"] > compared["limit"] else ""
    note = turned if compared["passed"] else ", accepted"
    return (
        f"differs from {other} by {compared['relative_difference']:.1e} of its largest {unit} "
        f"(limit {compared['limit']:.0e}{note})"
    )


def _figures(performance: dict[str, Any]) -> list[str]:
    p, preparation, model = performance, performance["preparation"], performance["model"]
    steps = "decode, resize and crop" if p["input_type"] == "uint8" else "decode, resize, crop and normalise"
    threads = "1 thread" if preparation["threads"] == 1 else f"{preparation['threads']} threads"
    lines = [
        f"images       {p['images']} in {p['seconds']:.3f} s: {_rate(p)} from file to answer",
        f"preparation  {preparation['milliseconds_per_image']:.2f} ms an image to {steps}, in {threads}",
        f"model        {model['seconds']:.3f} s: {_rate(model)} on {p['device']} by {_NAMES[p['backend']]}, "
        f"{p['input_type']} input",
    ]
    for one in p["latency"]:
        calls = "1 call" if one["calls"] == 1 else f"{one['calls']} calls"
        times = f"median {one['median']:.2f} ms, p90 {one['p90']:.2f} ms, p99 {one['p99']:.2f} ms"
        lines.append(f"latency      batch of {one['batch_size']}: {times} ({calls})")
    return lines


def _accuracy(accuracy: dict[str, Any]) -> str:
    shares = [
        f"{metric.title} {metric.text(accuracy[name])} ({accuracy[f'{name}_correct']} of {accuracy['count']})"
        for name, metric in METRICS.items()
        if name in accuracy
    ]
    return f"accuracy     {', '.join(shares)}"


def _rate(figures: dict[str, Any]) -> str:
    return f"{figures['images_per_second']:,.0f} images/s"
