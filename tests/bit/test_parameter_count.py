# SPDX-License-Identifier: Apache-2.0
"""The published counts of parameters, and what it costs to build the largest network that fits here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.bit.config import BiTConfig
from src.zoo import create_network

# name -> parameters with 10 and with 21843 classes
COUNTS = {
    "R50x1": (23_520_842, 68_256_659),
    "R50x3": (211_235_530, 345_399_315),
    "R101x1": (42_512_970, 87_248_787),
    "R101x3": (381_851_338, 516_015_123),
    "R152x2": (232_279_178, 321_728_979),
    "R152x4": (928_422_154, 1_107_299_923),
}


@pytest.fixture(scope="module")
def built():
    """Parameters of networks that fit into memory, each built once, without drawing their weights."""
    known = {}

    def count(block_units, width_factor, num_classes):
        key = (block_units, width_factor, num_classes)
        if key not in known:
            keys = {"block_units": block_units, "width_factor": width_factor}
            network = create_network("bit_r50x1", num_classes=num_classes, **keys)
            known[key] = sum(parameter.size for parameter in network.get_parameters())
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.bit.network.initialise", lambda *_, **__: None)
        yield count


@pytest.mark.parametrize("name", COUNTS)
def test_counts_by_the_counts_of_narrow_networks(name, built):
    """A convolution grows with the square of the width, a normalisation and the head's weight with the width
    and its bias not at all: two narrow networks tell the count at any width, without allocating 4.4 GB."""
    units, width = BiTConfig.VARIANTS[f"bit_{name.lower()}"].values()
    classes = 10
    half, full = built(units, 0.5, classes) - classes, built(units, 1, classes) - classes
    square = 2 * full - 4 * half
    count = square * width**2 + (full - square) * width + classes
    assert count == COUNTS[name][0]
    head = (21843 - 10) * (2048 * width + 1)
    assert count + head == COUNTS[name][1]


def test_a_class_more_is_a_row_of_the_head_more(built):
    assert built((3, 4, 6, 3), 0.5, 11) - built((3, 4, 6, 3), 0.5, 10) == 1024 + 1


# /proc, as getrusage's peak is inherited from the process that starts this one.
BUILD = """
from pathlib import Path
from src.zoo import create_network

def resident(which):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(which))
    return int(line.split()[1]) * 1024

def build(**arguments):
    return create_network("bit_r101x1", num_classes=10, **arguments)

build(block_units=(1, 1, 1, 1), width_factor=0.5)  # loads what any network needs
before = resident("VmRSS")
network = build()
print(sum(parameter.size for parameter in network.get_parameters()), resident("VmHWM") - before)
"""


def test_a_network_is_built_without_allocating_twice():
    ended = subprocess.run(
        [sys.executable, "-c", BUILD],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    count, grown = map(int, ended.stdout.split()[-2:])
    assert count == 42_512_970
    assert 4 * count < grown < 1.5 * 4 * count
