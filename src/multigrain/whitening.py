# SPDX-License-Identifier: Apache-2.0
"""PCA whitening of MultiGrain's embedding, folded into the classifier so that no class score changes.

Berman et al., "MultiGrain" (arXiv 1902.05509): with v = [x, 1] / |[x, 1]| of an embedding x, and of many v
their mean m and PCA-whitening projection P, retrieval compares w = (v - m) P. A classifier [W | b] becomes
W' = [W | b] (P^T)^-1 with bias b' = [W | b] m, since then W' w + b' = [W | b] v = (W x + b) / |[x, 1]|,
which the network multiplies by |[x, 1]|. All of it is computed in float64.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from ..checkpoint.weights import load_weights
from ..common.errors import UserError
from ..data.decode import decode_resized
from ..retrieval.embedding import Embedder
from .config import MultiGrainConfig
from .network import MultiGrain, extended
from .recipe import MultiGrainRecipe

COMPARED = 8  # pictures whose logits are compared
TOLERANCE = 1e-3  # of the largest logit


class Extended(nn.Cell):
    """A network whose `embed` gives [x, 1] for an embedding x."""

    def __init__(self, network: nn.Cell):
        super().__init__()
        self.network = network

    def embed(self, images):
        return extended(self.network.embed(images))


@dataclass(frozen=True)
class FittedWhitening:
    """The map v -> (v - mean) @ projection, whose result has unit covariance over the images of the fit.

    Attributes:
        mean: (D,) float64.
        projection: (D, D) float64, invertible; its columns are the principal directions, largest variance
            first, each divided by its standard deviation.
    """

    mean: np.ndarray
    projection: np.ndarray


def fit_pca(embeddings: np.ndarray, *, regularisation: float = 0.0) -> FittedWhitening:
    """The PCA whitening of scikit-learn (variances with n - 1), in all D directions.

    A direction's largest coordinate is made positive, so that the same embeddings give the same signs.

    Args:
        embeddings: (n, D), one a row.
        regularisation: share of the mean variance that is added to the variance of each direction, >= 0. A
            positive one needs 2 images; directions that hardly vary are then not blown up to unit variance.

    Raises:
        UserError: the embeddings do not vary in all D directions beyond the rounding of float32 and nothing
            regularises, they do not vary at all, or they are not finite.
    """
    count, dims = embeddings.shape
    if not np.isfinite(embeddings).all():
        raise UserError("the network gives embeddings with NaN or infinity; its weights are damaged")
    if count < 2:
        raise UserError(f"images: {count} given, allowed: {dims + 1:,} or more; 2 with --regularisation")
    embeddings = embeddings.astype(np.float64)
    mean = embeddings.mean(axis=0)
    # The triangular factor has the same directions and variances as the n rows, and at most D rows.
    triangle = np.linalg.qr(embeddings - mean, mode="r")
    _, deviations, directions = np.linalg.svd(triangle, full_matrices=True)
    variances = np.zeros(dims)
    variances[: len(deviations)] = deviations**2 / (count - 1)
    rounding = np.finfo(np.float32).eps ** 2 * np.square(embeddings).sum(axis=1).mean()
    varying = int((variances > rounding).sum())
    if varying == 0:
        raise UserError("images: all of them have the same embedding; give pictures that differ")
    if varying < dims and regularisation == 0:
        mend = "give --regularisation 0.01"
        if count <= dims:
            mend += f", or {dims + 1:,} different images at least"
        raise UserError(
            f"images: the embeddings of {count:,} images vary in {varying:,} of {dims:,} directions, and all "
            f"are to get unit variance; {mend}"
        )
    variances += regularisation * variances.mean()
    peaks = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(dims), peaks])[:, None]
    return FittedWhitening(mean, directions.T / np.sqrt(variances))


def fold(
    whitening: FittedWhitening, weight: np.ndarray, bias: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A classifier of v as one of w = (v - mean) @ projection, with equal scores.

    Args:
        weight: (K, D); with `bias` (K, D - 1), for the embedding before a 1 is appended.
        bias: (K,), the weights of the appended 1.

    Returns:
        weight (K, D) and bias (K,), float64.
    """
    weight = weight.astype(np.float64)
    if bias is not None:
        weight = np.concatenate([weight, bias[:, None]], axis=1)
    return np.linalg.solve(whitening.projection, weight.T).T, weight @ whitening.mean


def whitened_weights(arrays: Mapping[str, np.ndarray], whitening: FittedWhitening) -> dict[str, np.ndarray]:
    """The arrays of the network with `whitening_dim` D, from those of the same network without, by name."""
    weight, bias = fold(whitening, arrays["fc.weight"], arrays["fc.bias"])
    new = {
        "fc.weight": weight,
        "fc.bias": bias,
        "whitening.mean": whitening.mean,
        "whitening.projection": whitening.projection,
    }
    return {**arrays, **{name: value.astype(np.float32) for name, value in new.items()}}


@dataclass(frozen=True)
class Whitened:
    """A whitened network.

    Attributes:
        arrays: of its parameters, by name.
        config: the plain network's, with the length of the whitened embedding.
        images: how many pictures it was fitted on.
        skipped: how many could not be read.
        score_change: how much a class score changed at most, in parts of the largest.
    """

    arrays: dict[str, np.ndarray]
    config: MultiGrainConfig
    images: int
    skipped: int
    score_change: float


def whiten(trained: Any, files: Sequence[str], *, regularisation: float = 0.0) -> Whitened:
    """Fits the whitening of a network's embedding on pictures, folds it, and compares the class scores.

    Args:
        trained: see `src.trained.Trained`; not whitened yet.
        files: pictures; those that cannot be read are named in the log.
        regularisation: see `fit_pca`.

    Raises:
        UserError: the checkpoint is of another model or whitened already, no picture can be read, there are
            too few of them, or the scores change.
    """
    recipe, network = trained.recipe, trained.network
    path = trained.checkpoint.path
    if not isinstance(network, MultiGrain):
        raise UserError(f"checkpoint {path} is of {recipe.config.model}; give one of MultiGrain")
    if recipe.config.whitening_dim:
        raise UserError(f"checkpoint {path} is whitened already; give the one before that")
    plain = {p.name: p.asnumpy() for p in network.get_parameters()}  # another cell around it renames them
    skipped = []

    def skip(picture: str, error: Exception) -> None:
        skipped.append(picture)
        logging.getLogger("quartet").warning("left out: %s", error)

    embedder = Embedder.from_trained(replace(trained, network=Extended(network)))
    embedded = dict(embedder.embed(((file, partial(decode_resized, file)) for file in files), skip=skip))
    if not embedded:
        raise UserError(f"images: none of the {len(files)} files can be read; give others")
    fitted = fit_pca(np.stack(list(embedded.values())), regularisation=regularisation)
    arrays = whitened_weights(plain, fitted)
    after = recipe.changed(whitening_dim=len(fitted.mean))
    change = _score_change(recipe, after, plain, arrays, list(embedded)[:COMPARED])
    if not change <= TOLERANCE:
        raise UserError(
            f"images: whitened, the class scores change by {change:.2g} of the largest, and nothing is "
            "written; give more pictures, or a larger --regularisation"
        )
    return Whitened(arrays, after.config, len(embedded), len(skipped), change)


def _score_change(
    before: MultiGrainRecipe,
    after: MultiGrainRecipe,
    plain: Mapping[str, np.ndarray],
    whitened: Mapping[str, np.ndarray],
    files: Sequence[str],
) -> float:
    """The largest difference of a class score over these pictures, in parts of the largest score."""
    how = before.preparation
    images = before.inputs()(ms.Tensor(np.stack([how.read_square(file) for file in files])))

    def scores(recipe: MultiGrainRecipe, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        network = recipe.network(num_classes=len(arrays["fc.weight"]))
        load_weights(network, arrays)
        return network.set_train(False)(images).asnumpy()

    expected = scores(before, plain)
    return float(np.abs(scores(after, whitened) - expected).max() / np.abs(expected).max())
