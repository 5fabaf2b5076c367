# SPDX-License-Identifier: Apache-2.0
"""The record of benchmarks.inference as tables in Markdown, for benchmarks.tables, and as a picture."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.inference_files import AT_BATCH_1, MODELS, TWIN
from benchmarks.inference_layers import CHAINS, LENGTH, STAGES
from benchmarks.inference_peers import BACKENDS
from benchmarks.record import ROOT

PICTURE = ROOT / "docs" / "inference.png"
TITLES = {TWIN: "ResNet-18"}
BIREAL, PEAKS = "birealnet18", "peaks_tera_multiply_adds_per_second"
SHOWN = tuple(name for name in BACKENDS if name != "MINDIR without norms")
AT_BATCH_32 = tuple(name for name in BACKENDS if name not in AT_BATCH_1)
FILES = ("MINDIR", "onnxruntime float32", "onnxruntime int8", "packed")
LAYERS_BY = {
    "packed": "packed", "OpenVINO binary": "OpenVINO binary", "MindSpore": "MindSpore float32"
}  # fmt: skip
FLOAT_BY = ("MindSpore", "onnxruntime float32", "OpenVINO float32")
TWIN_MULTIPLY_ADDS = 1_814_073_344  # of an image, as `python -m src.tools.summary` counts them

Record = Mapping[str, Any]


def tables(record: Record) -> dict[str, str]:
    """The texts that a page may hold, by the name in its marker."""
    found = record["figures"]

    models = [model for model in MODELS if model in found]

    def by_model(cell: Callable[[Mapping[str, Any]], str], backends: Iterable[str] = SHOWN) -> str:
        rows = [
            [name, *(cell(found[model][name]) if name in found[model] else "" for model in models)]
            for name in backends
            if any(name in found[model] for model in models)
        ]
        return _table(["", *(TITLES.get(model, model) for model in models)], rows)

    return {
        "binary peer": _binary_peer(found),
        "folding": "; ".join(_folding(record["bars"])) or "not measured",
        "latency": by_model(lambda one: _latency(one["batch_1"]["milliseconds"])),
        "throughput": by_model(lambda one: f"{one['batch_32']['images_per_second']:,.0f}", AT_BATCH_32),
        "size": by_model(lambda one: f"{one['file_bytes'] / 1e6:.1f}", FILES),
        "start": by_model(lambda one: f"{one['start_seconds']['median']:.1f}"),
        "memory": by_model(lambda one: f"{one['batch_1']['peak_memory_mib']:,}"),
        "layers": _layers(record),
        "ceiling": _ceiling(record),
        "machine": _machine(record),
    }


def all_tables(record: Record) -> str:
    """All of them, one below the other."""
    return "\n\n".join(f"{name}:\n\n{text}" for name, text in tables(record).items())


def multiply_adds_a_second(record: Record, chain: str, backend: str) -> float:
    """T of them, at the median."""
    total = sum(layer.multiply_adds for layer in CHAINS[chain])
    return total / record["figures"][chain][backend]["batch_1"]["milliseconds"]["median"] / 1e9


def _latency(milliseconds: Mapping[str, float]) -> str:
    return f"{milliseconds['median']:.1f} ({milliseconds['p99']:.1f})"


def _layers(record: Record) -> str:
    rows = []
    for chain, layers in CHAINS.items():
        cells = []
        for backend in LAYERS_BY:
            figures = record["figures"].get(chain, {}).get(backend)
            if figures:
                took = figures["batch_1"]["milliseconds"]["median"]
                each = took if chain == "sixteen" else took / LENGTH
                rate = multiply_adds_a_second(record, chain, backend)
                cells.append(f"{each:.2f} ms, {1000 * rate:,.0f} G/s")
            else:
                cells.append("")
        side = layers[0].side
        rows.append(["all sixteen" if chain == "sixteen" else f"{chain}, {side}x{side}", *cells])
    return _table(["convolutions", *LAYERS_BY.values()], rows)


def _ceiling(record: Record) -> str:
    peaks, found = record[PEAKS], record["figures"]
    most = {kind: peaks[kind]["max"] for kind in peaks}
    words = (
        f"In registers alone {record['settings']['threads']} threads do {most['popcount']:.2f} T "
        f"multiply-adds/s of 1 bit (xor, popcount, add) and {most['float32']:.3f} T of float32 (fma)."
    )
    if found.keys() >= CHAINS.keys():
        all_of_them, *shapes = (
            f"{100 * multiply_adds_a_second(record, chain, 'packed') / most['popcount']:.0f} %"
            for chain in CHAINS
        )
        words += f" The packed convolutions reach {all_of_them} of the first, by shape {', '.join(shapes)}."
    if TWIN in found:
        shares = []
        for backend in FLOAT_BY:
            milliseconds = found[TWIN][backend]["batch_1"]["milliseconds"]["median"]
            shares.append(f"{backend} {TWIN_MULTIPLY_ADDS / milliseconds / 1e7 / most['float32']:.0f} %")
        words += f" Of the second, ResNet-18 reaches as a whole network: {', '.join(shares)}."
    return words


def _machine(record: Record) -> str:
    where = record["environment"]
    flags = ", ".join(record["cpu_flags"]) or "none of those that count"
    versions = ", ".join(
        f"{name} {where[name]}" for name in ("mindspore", "onnxruntime", "openvino", "llvmlite")
    )
    return (
        f"{where['cpu']}, {record['settings']['threads']} threads, with {flags}; {versions}; {record['date']}"
    )


def _binary_peer(found: Mapping[str, Any]) -> str:
    """How many times as long as packed OpenVINO's binary convolutions take, over the shapes."""
    shapes = [found[name] for name in CHAINS if name != "sixteen" and name in found]
    took = [
        [one[by]["batch_1"]["milliseconds"]["median"] for by in ("OpenVINO binary", "packed")]
        for one in shapes
    ]
    ratios = [theirs / ours for theirs, ours in took]
    return f"{min(ratios):.1f} to {max(ratios):.1f} times" if ratios else "not measured"


def _folding(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many times as fast folded files are, and what limits it."""
    return [
        f"{bar['what']} {bar['ratio']['median']:.2f} times" + (f" ({bar['note']})" if "note" in bar else "")
        for bar in found
        if bar["bar"] == 4
    ]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(record: Record, path: Path) -> None:
    """What one image takes in each backend, birealnet18 and its float twin, and the convolutions alone."""
    from src.evaluation import drawing

    found, threads = record["figures"], record["settings"]["threads"]
    figure = drawing.new_figure(10.5, 4.9)
    where = record["environment"]["cpu"]
    drawing.headline(
        figure, "birealnet18 as 1-bit, and its float twin", f"{where}, {threads} threads, medians", left=0.03
    )
    times = {
        f"{TITLES.get(model, model)}, {backend}": figures["batch_1"]["milliseconds"]["median"]
        for model in (BIREAL, TWIN) if model in found
        for backend, figures in found[model].items()
    }  # fmt: skip
    left = figure.add_axes((0.25, 0.1, 0.3, 0.66))
    _bars(left, dict(sorted(times.items(), key=lambda one: -one[1])))
    left.set_title("one image of 224x224, milliseconds", loc="left", fontsize=10, color=drawing.INK)
    right = figure.add_axes((0.63, 0.17, 0.35, 0.59))
    _rates(right, record)
    right.set_title("T multiply-adds a second by convolution", loc="left", fontsize=10, color=drawing.INK)
    drawing.save(figure, path)


def _bars(axes: Any, times: Mapping[str, float]) -> None:
    from src.evaluation import drawing

    drawing.style(axes)
    axes.grid(visible=False)
    colours = [drawing.BLUE if f"{BIREAL}, packed" == name else drawing.PALE_BLUE for name in times]
    axes.barh(list(times), list(times.values()), color=colours, height=0.7)
    for place, milliseconds in enumerate(times.values()):
        axes.text(milliseconds, place, f" {milliseconds:.1f}", va="center", fontsize=8.5, color=drawing.INK)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_xlim(0, 1.12 * max(times.values()))


def _rates(axes: Any, record: Record) -> None:
    from src.evaluation import drawing

    drawing.style(axes)
    chains = [f"{channels} channels" for channels, _ in STAGES]
    colours = dict(zip(LAYERS_BY, (drawing.BLUE, drawing.PALE_BLUE, drawing.QUIET)))
    for number, (backend, label) in enumerate(LAYERS_BY.items()):
        rates = [multiply_adds_a_second(record, chain, backend) for chain in chains]
        places = [place + 0.27 * (number - 1) for place in range(len(chains))]
        axes.bar(places, rates, width=0.24, color=colours[backend], label=label, zorder=2)
    peak = record[PEAKS]["popcount"]["max"]
    axes.axhline(peak, color=drawing.RED, lw=1.2, label="most by popcount")
    axes.set_ylim(0, 1.4 * max(peak, axes.dataLim.y1))
    axes.set_xticks(range(len(chains)), [f"{channels}\n{side}x{side}" for channels, side in STAGES])
    axes.set_xlabel("channels and pixels", fontsize=9)
    axes.legend(loc="upper center", ncol=2, frameon=False, fontsize=8.5, labelcolor=drawing.INK)
