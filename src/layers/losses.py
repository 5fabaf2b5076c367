# SPDX-License-Identifier: Apache-2.0
"""Losses that models share, in float32 whatever the network's precision."""

import mindspore as ms
from mindspore import nn, ops


class CrossEntropy(nn.Cell):
    """Mean cross-entropy of logits (N, K) with soft targets (N, K) that sum to 1, or integer labels (N,).

    - mean_n sum_k target[n, k] log softmax(logits[n])[k]
    """

    def construct(self, logits, targets):
        log_probabilities = ops.log_softmax(logits.astype(ms.float32), axis=-1)
        if targets.ndim == 1:
            targets = ops.one_hot(targets, logits.shape[-1], 1.0, 0.0)
        return -(targets * log_probabilities).sum(axis=-1).mean()
