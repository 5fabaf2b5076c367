# SPDX-License-Identifier: Apache-2.0
"""What a network says of each image, as a CSV file."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..common.files import atomic_path
from .evaluate import Answers
from .metrics import Scores

TOP = 5  # classes an image


@contextmanager
def predictions_file(
    path: str | os.PathLike, *, class_names: Sequence[str], name_of: Callable[[int], str]
) -> Iterator[Callable[[Answers, Scores], None]]:
    """Gives what `evaluate` takes as `each`; the file is there, whole, when the block ends well.

    A line an image, in their order: `image` (its file or number), `label`, `predicted`, `probability`, then
    class_2, probability_2 ... of the next likeliest, 5 in all where there are as many. Probabilities are by
    softmax over all classes. Where the logits predict nothing, what is predicted is empty.

    Args:
        class_names: by class.
        name_of: the file or number of an image by its index.

    Raises:
        UserError: the file cannot be written.
    """
    top = min(TOP, len(class_names))
    further = [f"{what}_{place}" for place in range(2, top + 1) for what in ("class", "probability")]
    with atomic_path(path) as temporary, temporary.open("w", newline="", **_ANY_NAME) as file:
        lines = csv.writer(file)
        lines.writerow(["image", "label", "predicted", "probability", *further])

        def write(batch: Answers, scores: Scores) -> None:
            order = np.argsort(-batch.outputs, axis=1, kind="stable")[:, :top]
            for row, likeliest in enumerate(order):
                said = [""] * (2 * top)
                if scores.prediction[row] >= 0:
                    logits = batch.outputs[row]
                    # The prediction's own probability times how much less likely the others are.
                    ratios = np.exp(logits[likeliest] - logits[likeliest[0]])
                    shares = scores.probability[row] * ratios
                    said[::2] = [class_names[label] for label in likeliest]
                    said[1::2] = [f"{share:.6g}" for share in shares]
                label = class_names[batch.labels[row]]
                lines.writerow([name_of(batch.indices[row]), label, *said])

        yield write


_ANY_NAME = {"encoding": "utf-8", "errors": "surrogateescape"}  # a file name need not be valid UTF-8
