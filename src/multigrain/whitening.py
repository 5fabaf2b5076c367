"""PCA whitening of MultiGrain's embedding, folded into the classifier so that no class score changes.

Berman et al., "MultiGrain" (arXiv 1902.05509): with v = [x, 1] / |[x, 1]| of an embedding x, and of many v
their mean m and PCA-whitening projection P, retrieval compares w = (v - m) P. A classifier [W | b] becomes
W' = [W | b] (P^T)^-1 with bias b' = [W | b] m, since then W' w + b' = [W | b] v = (W x + b) / |[x, 1]|,
which the network multiplies by |[x, 1]|. All of it is computed in float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ..common.errors import UserError


class Extended(nn.Cell):
    """A network whose `embed` gives [x, 1] for an embedding x: what is whitened, once its length is 1."""

    def __init__(self, network: nn.Cell):
        super().__init__()
        self.network = network

    def embed(self, images):
        x = self.network.embed(images).astype(ms.float32)
        return ops.concat((x, ops.ones((x.shape[0], 1), ms.float32)), axis=1)


@dataclass(frozen=True)
class Whitening:
    """The map v -> (v - mean) @ projection, whose result has unit covariance over the images of the fit.

    Attributes:
        mean: (D,) float64.
        projection: (D, D) float64, invertible; its columns are the principal directions, largest variance
            first, each divided by its standard deviation.
    """

    mean: np.ndarray
    projection: np.ndarray


def fit_pca(embeddings: np.ndarray, *, regularisation: float = 0.0) -> Whitening:
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
        raise UserError(
            f"images: the embeddings of {count:,} images vary in {varying:,} of {dims:,} directions; "
            f"a whitening needs {dims + 1:,} different images at least, or --regularisation 0.01"
        )
    variances += regularisation * variances.mean()
    peaks = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(dims), peaks])[:, None]
    return Whitening(mean, directions.T / np.sqrt(variances))


def fold(
    whitening: Whitening, weight: np.ndarray, bias: np.ndarray | None = None
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


def whitened_weights(arrays: Mapping[str, np.ndarray], whitening: Whitening) -> dict[str, np.ndarray]:
    """The arrays of the network with `whitening_dim` D, from those of the same network without, by name."""
    weight, bias = fold(whitening, arrays["fc.weight"], arrays["fc.bias"])
    new = {
        "fc.weight": weight,
        "fc.bias": bias,
        "whitening.mean": whitening.mean,
        "whitening.projection": whitening.projection,
    }
    return {**arrays, **{name: value.astype(np.float32) for name, value in new.items()}}
