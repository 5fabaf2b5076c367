# SPDX-License-Identifier: Apache-2.0
"""How far two sets of logits are from each other that should be the same."""

from typing import Any

import numpy as np

LIMITS = {"float32": 1e-5, "another runtime": 1e-4, "float16": 2e-2}
"""Of the largest absolute logit, by the type that convolutions compute in, and in float32 by who computes.

One rounding is at most u of a value: 2^-24 in float32, 2^-11 in float16. About one a layer lies between
image and logit: of n layers, n u if all round one way, sqrt(n) u if they are independent. For n = 50 that
is 2.4e-2 and 3.5e-3 in float16. In float32 it is 3e-6 and 4e-7, and sums of thousands of products add to
it. Another runtime adds them in another order: for a BiT R50x1 of random weights the embeddings of
MindSpore, ONNX Runtime and OpenVINO differ by 6e-6 to 1.3e-5, each from each other.
"""
AGREEMENT = 0.95  # of the largest classes, where logits cannot agree


def compare_logits(
    reference: np.ndarray, other: np.ndarray, *, limit: float = LIMITS["float32"], signs: bool = False
) -> dict[str, Any]:
    """Compares two sets of logits of shape (N, K), N >= 1.

    Args:
        reference: what they should be.
        other: what they are.
        limit: of the difference, as a share of the largest logit.
        signs: the network takes signs on its way. The smallest rounding turns the sign of a value near 0, and
            what comes behind differs then: it is enough that the largest class is the same in AGREEMENT of
            the rows.

    Returns:
        `largest_logit` = max |reference|; `max_difference` = max |other - reference|; `relative_difference` =
        their quotient, 0 if both are 0; `limit`; `top1_agreement`: part of the N rows with the same largest
        class; `passed`: false when any value is not finite.
    """
    reference, other = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    largest = float(np.abs(reference).max())
    difference = float(np.abs(other - reference).max())
    agreement = float(np.mean(reference.argmax(axis=1) == other.argmax(axis=1)))
    near = difference <= limit * largest or (signs and agreement >= AGREEMENT)
    return {
        "largest_logit": largest,
        "max_difference": difference,
        "relative_difference": 0.0 if difference == 0 else difference / largest if largest else float("inf"),
        "limit": limit,
        "top1_agreement": agreement,
        "passed": bool(np.isfinite([largest, difference]).all()) and near,
    }
