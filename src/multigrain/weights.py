# SPDX-License-Identifier: Apache-2.0
"""Weights in torchvision's names, and in those of the official MultiGrain (facebookresearch/multigrain)."""

import re
from collections.abc import Collection, Mapping

import numpy as np

from ..common.errors import UserError

_OFFICIAL = {
    r"^features\.": "",
    r"^classifier\.": "fc.",
    r"^whitening\.pca\.pca_m$": "whitening.mean",
    r"^whitening\.pca\.pca_P$": "whitening.projection",
}


def translate(
    weights: Mapping[str, np.ndarray], own: Collection[str], exponent: float
) -> dict[str, np.ndarray]:
    """The same arrays by the network's names; torchvision's are the same, and names of no known kind stay.

    Args:
        weights: by name, as stored.
        own: names of the network's parameters.
        exponent: p that the network pools with in training; a file that was trained with another is refused.

    Raises:
        UserError: the file's p is another.
    """
    renamed = {}
    for name, array in weights.items():
        for pattern, ours in _OFFICIAL.items():
            name = re.sub(pattern, ours, name)
        renamed[name] = array
    if "pool.p" in renamed and "pool.p" not in own:
        trained = float(np.asarray(renamed.pop("pool.p")))
        if not np.isclose(trained, exponent):
            raise UserError(
                f"pools with p = {trained:g}, the network with {exponent:g}; "
                f"give --pooling_exponent {trained:g}"
            )
    return renamed
