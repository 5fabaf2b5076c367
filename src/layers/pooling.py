# SPDX-License-Identifier: Apache-2.0
"""Maximum and average pooling."""

from mindspore import nn, ops

from .device import on_cpu


class MaxPool2d(nn.Cell):
    """The maximum of every k x k window, side by side, (N, C, H, W) -> (N, C, H // k, W // k).

    Rows and columns that are left over are dropped.

    MindSpore's gradient of max pooling on CPU searches every window again. Where the windows tile the image,
    adaptive pooling is the same function, its gradient (equal to the bit) follows the stored indices, and
    forward and backward together are three times faster; so training on a CPU uses it. Rows and columns that
    are left over are cut off first, by `ops.Slice`: indexing (x[:, :, :h]) is a strided slice, with which the
    whole takes twice as long as the plain operator. Evaluation and exported files always hold that operator,
    which is what other devices have fast kernels for.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        self.kernel_size = kernel_size
        self.pool = nn.MaxPool2d(
            kernel_size=kernel_size, stride=kernel_size, pad_mode="valid", padding=0, ceil_mode=False
        )
        self.slice = ops.Slice()
        self.on_cpu = on_cpu()

    def construct(self, x):
        if not (self.training and self.on_cpu):
            return self.pool(x)
        k = self.kernel_size
        n, channels, height, width = x.shape
        rows, columns = height // k, width // k
        if height % k or width % k:
            x = self.slice(x, (0, 0, 0, 0), (n, channels, rows * k, columns * k))
        return ops.adaptive_max_pool2d(x, (rows, columns))


class ZeroPaddedMaxPool2d(nn.Cell):
    """3x3 maximum with stride 2 over the image in a border of zeros, (N, C, H, W) -> (N, C, H / 2, W / 2).

    The official border is 0, and padded pooling would take minus infinity. That differs: the input is the
    output of a convolution, with both signs. (The gradient of `ops.pad` is wrong in MindSpore 2.10 on a
    CPU, and `ops.Pad` is slow: concatenation is neither.)
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="valid", padding=0, ceil_mode=False)

    def construct(self, x):
        n, c, height, width = x.shape
        rows = ops.zeros((n, c, 1, width), x.dtype)
        columns = ops.zeros((n, c, height + 2, 1), x.dtype)
        x = ops.concat((rows, x, rows), axis=2)
        return self.pool(ops.concat((columns, x, columns), axis=3))


class PaddedMaxPool2d(nn.Cell):
    """3x3 maximum with stride 2 and padding 1, (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)).

    The border does not count, as in PyTorch: it repeats the pixel beside it, which is in every window that
    the border is in. (With `pad_mode="pad"` MindSpore compiles a three-dimensional pooling; "same" shifts
    the windows of even images by a pixel.)
    """

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, pad_mode="valid", padding=0, ceil_mode=False)

    def construct(self, x):
        height, width = x.shape[2:]
        rows = (x[:, :, :1], x, x[:, :, -1:]) if height % 2 else (x[:, :, :1], x)
        x = ops.concat(rows, axis=2)
        columns = (x[:, :, :, :1], x, x[:, :, :, -1:]) if width % 2 else (x[:, :, :, :1], x)
        return self.pool(ops.concat(columns, axis=3))


class AvgPool2d(nn.Cell):
    """The mean of every k x k window, side by side, (N, C, H, W) -> (N, C, H // k, W // k).

    The plain operator: `nn.AvgPool2d` compiles to a three-dimensional pooling.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        self.pool = ops.AvgPool(kernel_size=kernel_size, strides=kernel_size, pad_mode="valid")

    def construct(self, x):
        return self.pool(x)
