"""Maximum pooling with non-overlapping windows."""

import mindspore as ms
from mindspore import nn, ops


class MaxPool2d(nn.Cell):
    """The maximum of every k x k window, (N, C, H, W) -> (N, C, H // k, W // k); rest rows are dropped.

    MindSpore's gradient of max pooling on CPU searches every window again. Where the windows tile the image,
    adaptive pooling is the same function, its gradient (equal to the bit) follows the stored indices, and
    forward and backward together are three times faster; so training on a CPU uses it. Evaluation and
    exported files always hold the plain operator, which is what other devices have fast kernels for.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        self.kernel_size = kernel_size
        self.pool = nn.MaxPool2d(
            kernel_size=kernel_size, stride=kernel_size, pad_mode="valid", padding=0, ceil_mode=False
        )
        self.on_cpu = ms.get_context("device_target") == "CPU"

    def construct(self, x):
        k = self.kernel_size
        height, width = x.shape[2], x.shape[3]
        if self.training and self.on_cpu and height % k == 0 and width % k == 0:
            return ops.adaptive_max_pool2d(x, (height // k, width // k))
        return self.pool(x)
