"""How far the answers of an exported model are from those of the network it was made of."""

from typing import Any

import numpy as np

LIMIT = 1e-5  # of the largest absolute logit; float32 keeps about 6e-8


def compare_logits(reference: np.ndarray, exported: np.ndarray, *, limit: float = LIMIT) -> dict[str, Any]:
    """Compares two sets of logits of shape (N, K), N >= 1.

    Returns:
        `largest_logit` = max |reference|; `max_difference` = max |exported - reference|;
        `relative_difference` = their quotient, 0 if both are 0; `limit`; `passed`: max_difference <= limit *
        largest_logit, false when any value is not finite; `top1_agreement`: part of the N rows with the same
        largest class.
    """
    reference, exported = np.asarray(reference, np.float64), np.asarray(exported, np.float64)
    largest = float(np.abs(reference).max())
    difference = float(np.abs(exported - reference).max())
    return {
        "largest_logit": largest,
        "max_difference": difference,
        "relative_difference": 0.0 if difference == 0 else difference / largest if largest else float("inf"),
        "limit": limit,
        "passed": bool(np.isfinite(largest)) and difference <= limit * largest,
        "top1_agreement": float(np.mean(reference.argmax(axis=1) == exported.argmax(axis=1))),
    }
