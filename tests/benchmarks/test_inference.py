# SPDX-License-Identifier: Apache-2.0
"""What benchmarks.inference makes of its figures: the bars, the page, and the chains that it measures."""

import json

import pytest

from benchmarks import inference_peaks
from benchmarks.inference_bars import bars, in_words
from benchmarks.inference_files import SHAPES
from benchmarks.inference_layers import CHAINS, program_of
from benchmarks.inference_page import all_tables
from benchmarks.record import RECORDS

RECORD = RECORDS / "inference.json"


def _figures(*medians, size=None, start=1.0):
    return {
        "batch_1": {"round_medians": list(medians)},
        "file_bytes": size,
        "start_seconds": {"median": start},
    }


def test_a_bar_takes_the_fastest_of_the_others_round_by_round():
    found = {
        "birealnet18": {
            "packed": _figures(2, 4, 2, size=4_200_001, start=1.9),
            "MindSpore": _figures(9, 9, 9),
        },
        "resnet18": {"onnxruntime int8": _figures(4, 8, 2), "OpenVINO int8": _figures(9, 9, 9)},
    }
    told = bars(found, amx=False)
    less = next(bar for bar in told if "fewer bits" in bar["what"])
    assert (less["against"], less["ratio"]["median"], less["ratio"]["min"]) == ("onnxruntime int8", 2, 1)
    assert [(bar["at_least"], bar["met"]) for bar in told if "ratio" in bar] == [(8, False), (1.5, True)]
    assert [bar["met"] for bar in told if "at_most" in bar] == [False, True]
    assert "NOT MET" in in_words(told[0]) and "met    " in in_words(less)


def test_a_processor_with_amx_has_its_own_word_on_few_bits():
    found = {"birealnet18": {"packed": _figures(1, size=1)}, "resnet18": {"onnxruntime int8": _figures(1)}}
    assert "AMX" in in_words(next(bar for bar in bars(found, amx=True) if "ratio" in bar))


def test_what_no_folding_can_give_is_not_asked_of_it():
    """MultiGrain's bar is met where a network without batch norms would not meet it either."""
    times = {"MINDIR": _figures(10), "MINDIR unfolded": _figures(11)}
    for bare, met in ((9.5, True), (9, False)):
        found = {"multigrain_resnet50": times | {"MINDIR without norms": _figures(bare)}}
        (bar,) = bars(found, amx=False)
        assert bar["met"] is met and (bar["ratio"]["median"], bar["at_least"]) == (1.1, 1.2)
        assert ("without batch norms 1.16 times" in in_words(bar)) is met
    (bar,) = bars({"bit_r50x1": times}, amx=False)
    assert not bar["met"] and "note" not in bar


@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_is_a_program_of_the_convolutions_it_names(chain):
    layers, program = CHAINS[chain], program_of(chain)
    shapes = program.shapes(*SHAPES[chain][1:])
    for number, layer in enumerate(layers):
        assert shapes[f"layer{number}"] == (layer.outputs, layer.side, layer.side)


def test_the_sixteen_are_those_of_birealnet18():
    assert (
        sum(layer.multiply_adds for layer in CHAINS["sixteen"]) == 1_676_279_808
    )  # as src.tools.summary says


def test_a_processor_counts_more_bits_than_it_multiplies_floats(monkeypatch):
    monkeypatch.setattr(inference_peaks, "ROUNDS", 100_000)
    found = inference_peaks.peaks(1)
    assert max(found["popcount"]) > max(found["float32"]) > 0


@pytest.mark.parametrize("names", [["resnet9"], ["birealnet18"], ["sixteen"]])
def test_a_record_of_some_models_has_tables(names):
    record = json.loads(RECORD.read_text())
    some = {name: figures for name, figures in record["figures"].items() if name in names}
    assert "not measured" in all_tables(record | {"figures": some, "bars": []})
