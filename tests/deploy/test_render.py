# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from src.deploy.classify import Classified
from src.deploy.render import render_export, render_json, render_text

RESULTS = [
    {"file": "a.png", "predictions": [{"class": "bee", "probability": 0.98765}]},
    {"file": "b\udcff.png", "predictions": [{"class": "Bär", "probability": 0.5}], "label": "ant"},
]
SKIPPED = [{"file": "c.png", "reason": "the file is empty"}]
PERFORMANCE = {
    "backend": "lite",
    "device": "Ascend",
    "input_type": "uint8",
    "images": 2,
    "seconds": 0.5,
    "images_per_second": 4.0,
    "preparation": {"seconds": 0.2, "threads": 1, "milliseconds_per_image": 100.0},
    "model": {"seconds": 0.25, "images_per_second": 8.0},
    "latency": [
        {"batch_size": 1, "calls": 1, "median": 1.0, "p90": 2.0, "p99": 3.0},
        {"batch_size": 8, "calls": 3, "median": 4.0, "p90": 5.0, "p99": 6.0},
    ],
}
ACCURACY = {"count": 2, "top1": 50.0, "top5": 100.0, "top1_correct": 1, "top5_correct": 2}
FIGURES = [
    "images       2 in 0.500 s: 4 images/s from file to answer",
    "preparation  100.00 ms an image to decode, resize and crop, in 1 thread",
    "model        0.250 s: 8 images/s on Ascend by MindSpore Lite, uint8 input",
    "latency      batch of 1: median 1.00 ms, p90 2.00 ms, p99 3.00 ms (1 call)",
    "latency      batch of 8: median 4.00 ms, p90 5.00 ms, p99 6.00 ms (3 calls)",
]


def test_text():
    lines = render_text(Classified(RESULTS, SKIPPED, PERFORMANCE, ACCURACY)).splitlines()
    assert lines == [
        "a.png",
        "   98.77 %  bee",
        "b?.png  (ant)",
        "   50.00 %  Bär",
        "skipped c.png: the file is empty",
        "",
        *FIGURES,
        "accuracy     top-1 50.00 % (1 of 2), top-5 100.00 % (2 of 2)",
    ]


def test_a_single_image_has_no_figures_unless_they_are_asked_for():
    one = Classified(RESULTS[:1], [], PERFORMANCE, None)
    assert render_text(one).splitlines() == ["a.png", "   98.77 %  bee"]
    lines = render_text(one, summary=True).splitlines()
    assert lines == [*FIGURES, "accuracy     not measured: no labels"]


@pytest.mark.parametrize("summary", [False, True])
def test_nothing_could_be_read(summary):
    text = render_text(Classified([], SKIPPED, PERFORMANCE, None), summary=summary)
    assert text.splitlines()[0] == "skipped c.png: the file is empty" and "images/s" not in text


def test_json_is_one_line():
    text = render_json(Classified(RESULTS, SKIPPED, PERFORMANCE, None))
    assert "\n" not in text
    expected = {"results": RESULTS, "skipped": SKIPPED, "performance": PERFORMANCE}
    assert json.loads(text) == expected
    with_labels = json.loads(render_json(Classified(RESULTS, SKIPPED, PERFORMANCE, ACCURACY)))
    assert with_labels == {**expected, "accuracy": ACCURACY}


def test_an_export_as_a_table():
    distance = {"relative_difference": 1.23e-7, "limit": 1e-5, "passed": True}
    one = {"path": "out/net/model.mindir", "batch_size": 8, "bytes": 1234567}
    report = {
        "folder": "out/net", "file_format": "MINDIR", "input_type": "uint8", "compute_type": "float16",
        "inputs": {"random": 8, "real": 64}, "passed": True, "folding": distance, "quantisation": None,
        "file": {"relative_difference": 0.03, "limit": 2e-2, "passed": False}, "embedding": None,
        "top1_agreement": {"images": 64, "agree": 63}, "files": [one],
    }  # fmt: skip
    assert render_export(report).splitlines() == [
        "folder   out/net",
        "format   MINDIR, uint8 input, float16 inside",
        "file     model.mindir  (batches of 8, 1,234,567 bytes)",
        "folding  differs from the network as trained by 1.2e-07 of its largest logit (limit 1e-05)",
        "parity   differs from the network by 3.0e-02 of its largest logit (limit 2e-02, accepted), over 72 "
        "images",
        "top-1    as by the network in float32 for 63 of 64 test images",
    ]
    several = report | {"folding": None, "file": None, "passed": None, "top1_agreement": None}
    lines = render_export(several | {"files": [one, one | {"batch_size": 1}]}).splitlines()
    assert [line.split()[0] for line in lines] == [
        "folder", "format", "file", "file", "folding", "parity",
    ]  # fmt: skip
    exported = render_export(
        report | {"embedding": distance, "files": [one | {"batch_size": None}]}
    ).splitlines()
    assert exported[2] == "file       model.mindir  (batches of any size, 1,234,567 bytes)"
    assert (
        exported[5] == "embedding  differs from the network's by 1.2e-07 of its largest value (limit 1e-05)"
    )
    assert (
        lines[-2] == "folding  none" and lines[-1] == "parity   not compared: such a file cannot be run here"
    )
    signs = report | {"file": {"relative_difference": 0.03, "limit": 2e-2, "passed": True}}
    assert "(limit 2e-02, as signs turned), over 72 images" in render_export(signs)
