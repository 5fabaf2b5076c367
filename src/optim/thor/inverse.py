# SPDX-License-Identifier: Apache-2.0
"""Inverses of damped factors."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from ...layers.device import on_cpu

# Cholesky's method cannot fail for a matrix of s rows whose least eigenvalue is above its largest diagonal
# element times about s units in the last place (Higham, Accuracy and Stability of Numerical Algorithms,
# 10.1); some more for the rounding of the matrix itself.
_ROUNDING = 8 * float(np.finfo(np.float32).eps)


class DampedInverse(nn.Cell):
    """Symmetric M without negative eigenvalues, (B, s, s), and d > 0 of each, (B,) -> (M + d I)^-1, float32.

    d is raised to where rounding cannot make M + d I singular: `_ROUNDING` s times the largest diagonal
    element of M. The second result is how many were, a float32 scalar.

    On a CPU by Cholesky's method; elsewhere by MindSpore's MatrixInverse, as it documents no Cholesky for
    Ascend.
    """

    def __init__(self, side: int):
        super().__init__(auto_prefix=False)
        self.on_cpu = on_cpu()
        self.identity = ms.Tensor(np.eye(side, dtype=np.float32))
        self.rounding = _ROUNDING * side
        self.cholesky = ops.Cholesky()
        self.solve = ops.MatrixTriangularSolve(lower=True)
        self.transposed_times = ops.BatchMatMul(transpose_a=True)
        self.invert = ops.MatrixInverse()

    def construct(self, matrices, damping):
        least = self.rounding * (matrices * self.identity).max(axis=(1, 2))
        matrices = matrices + ops.maximum(damping, least).reshape(-1, 1, 1) * self.identity
        raised = ops.cast(damping < least, ms.float32).sum()
        if not self.on_cpu:
            return self.invert(matrices), raised
        root = self.solve(self.cholesky(matrices), ops.broadcast_to(self.identity, matrices.shape))
        return self.transposed_times(root, root), raised
