"""Group normalisation."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class GroupNorm(nn.Cell):
    """Group normalisation (Wu and He, arXiv 1803.08494), (N, C, H, W) -> the same, in float32.

    (x - mean) / sqrt(variance + eps) * gamma + beta, where mean and (biased) variance are those of an image's
    group of C / groups channels, and gamma and beta are per channel.

    A CPU computes the same by two batch normalisations: one in training mode over the view
    (1, N * groups, ...), whose "channels" are the groups of all images, and one with the fixed statistics 0
    and 1 for gamma and beta. Forward and backward together are twice as fast as MindSpore's group
    normalisation. Exported files and other devices have the plain operator.

    Args:
        channels: C, a multiple of `groups`.
    """

    keep_float32 = True

    def __init__(self, *, channels: int, groups: int = 32, eps: float = 1e-5):
        super().__init__()
        self.groups = groups
        self.eps = eps
        self.gamma = ms.Parameter(ms.Tensor(np.ones(channels, np.float32)), name="gamma")
        self.beta = ms.Parameter(ms.Tensor(np.zeros(channels, np.float32)), name="beta")
        self.on_cpu = ms.get_context("device_target") == "CPU"
        if self.on_cpu:
            # With momentum 0 the running statistics, which nobody reads, stay as they are.
            self.standardise = ops.BatchNorm(is_training=True, epsilon=eps, momentum=0.0)
            self.scale = ops.BatchNorm(is_training=False, epsilon=eps)
            self.mean = ms.Tensor(np.zeros(channels, np.float32))
            self.variance = ms.Tensor(np.full(channels, 1 - eps, np.float32))

    def construct(self, x):
        if not self.on_cpu:
            return ops.group_norm(x, self.groups, self.gamma, self.beta, self.eps)
        shape = x.shape
        one = ops.ones((shape[0] * self.groups,), ms.float32)
        zero = ops.zeros((shape[0] * self.groups,), ms.float32)
        view = x.reshape(1, shape[0] * self.groups, -1, shape[3])
        x = self.standardise(view, one, zero, zero, one)[0].reshape(shape)
        return self.scale(x, self.gamma, self.beta, self.mean, self.variance)[0]
