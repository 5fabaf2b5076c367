# SPDX-License-Identifier: Apache-2.0
"""Damage to files, and what a reader makes of it: one line, the same as before, or something else."""

import itertools
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from src.common.errors import UserError

KINDS = ("flip", "cut", "begins as another", "zeroed", "appended", "blocks exchanged")
_MOST_MEMORY = 1 << 20  # KiB that the process may grow by: a length that was damaged must not be believed


def mutated(whole: bytes, number: int, *, other: bytes) -> tuple[str, bytes]:
    """Mutation `number` of what a file holds, of kind `number` mod 6; it may change nothing.

    Every second flip is in the first 512 bytes or the last: headers are there.
    """
    rng, kind = np.random.default_rng(number), KINDS[number % len(KINDS)]
    other = other[::-1] if other == whole else other
    near = number // len(KINDS) % 2 and len(whole) > 1024
    place = int(rng.integers(512)) if near else int(rng.integers(len(whole)))
    if near and rng.integers(2):
        place = len(whole) - 1 - place
    end = min(len(whole), place + int(rng.integers(1, 65)))
    data = bytearray(whole)
    if kind == "flip":
        data[place] ^= 1 << int(rng.integers(8))
    elif kind == "cut":
        del data[place:]
    elif kind == "begins as another":
        length = int(rng.integers(1, min(len(whole), len(other), 512)))
        data[:length] = other[:length]
    elif kind == "zeroed":
        data[place:end] = bytes(end - place)
    elif kind == "appended":
        data += rng.bytes(end - place) if rng.integers(2) else whole[place:end]
    else:
        length = min(end - place, len(whole) // 2)
        first, second = sorted(int(k) for k in rng.integers(0, len(whole) - length + 1, 2))
        if second - first >= length:
            one, two = whole[first : first + length], whole[second : second + length]
            data[first : first + length], data[second : second + length] = two, one
    return f"mutation {number}, {kind} at {place}", bytes(data)


def outcomes(
    files: Sequence[Path],
    read: Callable[[], object],
    *,
    count: int,
    accepts: Callable[[Path, bytes], bool] = lambda path, data: False,
) -> Counter:
    """Damages files in turn, `count` times in all, and reads each time. Afterwards they are as before.

    Args:
        files: of one folder. The beginning of each is also put before another one.
        read: opens what the files are, by the function that the doors call; its answers can be compared.
        accepts: of a file and what it holds: whether another answer is in order, as no checksum covers it.

    Returns:
        How many were "refused", in one line that names the folder; gave the "same" answer; were "accepted".

    Raises:
        AssertionError: something else, with the file and the mutation.
    """
    contents = {path: path.read_bytes() for path in files}
    expected, found = read(), Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in itertools.count():
        if found.total() == count:
            break
        path = files[number // len(KINDS) % len(files)]
        other = contents[files[(files.index(path) + 1) % len(files)]]
        words, data = mutated(contents[path], number, other=other)
        if data == contents[path]:
            continue
        path.write_bytes(data)
        try:
            answer = read()
        except UserError as error:
            assert str(path.parent) in str(error) and len(str(error).splitlines()) == 1, (path, words, error)
            found["refused"] += 1
        except Exception as error:
            raise AssertionError(f"{path}, {words}: {type(error).__name__}: {error}") from error
        else:
            if answer == expected:
                found["same"] += 1
            else:
                assert accepts(path, data), f"{path}, {words}: accepted"
                found["accepted"] += 1
        path.write_bytes(contents[path])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < _MOST_MEMORY, f"{grown >> 10} MiB of memory"
    return found
