"""ResNet9, the residual network of the DAWNBench CIFAR-10 entry (D. Page, cifar10-fast, MIT; own code).

Eight convolutions and one dense layer, for 3 x 32 x 32 images:

    prep       conv 3 -> 64                                  32 x 32
    layer1     conv 64 -> 128, max-pool 2, residual of two   16 x 16
    layer2     conv 128 -> 256, max-pool 2                    8 x 8
    layer3     conv 256 -> 512, max-pool 2, residual of two   4 x 4
    max-pool 4, dense 512 -> classes without bias, logits x 0.125

| widths            | classes | parameters | multiply-adds an image |
|-------------------|---------|------------|------------------------|
| 64, 128, 256, 512 | 10      | 6,573,120  | 379 M                  |
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from mindspore import nn

from ..layers.activation import NON_DECREASING
from ..layers.activation import activation as activation_cell
from ..layers.conv import conv2d, dense
from ..layers.fold import fold_factor, fold_layers
from ..layers.init import dirac, initialise, torch_default
from ..layers.input_whitening import FORMS, whitening_conv
from ..layers.norm import batch_norm2d
from ..layers.pooling import MaxPool2d


class ConvBlock(nn.SequentialCell):
    """Convolution, batch normalisation, activation and, where `pool` > 1, maximum pooling.

    (N, in, H, W) -> (N, out, H / pool, W / pool). The pooling comes last, or right behind the convolution
    with `pool_before_norm` (a different network, faster: cifar10-fast's "bag of tricks").

    Args:
        norm: `batch_norm2d` with settings.
        identity: the convolution starts by copying its input, see `layers.init.dirac`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        pool: int = 1,
        pool_before_norm: bool = False,
        act: str = "relu",
        celu_alpha: float = 1.0,
        norm: Callable[..., nn.Cell] = batch_norm2d,
        identity: bool = False,
    ):
        cells = {
            "conv": conv2d(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size),
            "bn": norm(channels=out_channels),
            "act": activation_cell(act, celu_alpha=celu_alpha),
        }
        if identity:
            cells["conv"].initialiser = dirac(torch_default)
        order = list(cells)
        if pool > 1:
            cells["pool"] = MaxPool2d(pool)
            order.insert(1 if pool_before_norm else 2 if act in NON_DECREASING else 3, "pool")
        super().__init__(OrderedDict((name, cells[name]) for name in order))


class ResNet9(nn.Cell):
    """(N, 3, 32, 32) float32 -> logits (N, num_classes). See the module's docstring.

    Args:
        num_classes: number of classes.
        widths: channels of prep, layer1, layer2 and layer3.
        activation: a name of `layers.names.ACTIVATIONS`; `celu_alpha` is for CELU.
        pool_before_norm: pool right behind the convolution, before batch normalisation.
        head_scale: factor on the logits.
        norm_momentum, norm_eps, norm_scale, ghost_batch: of `layers.norm.batch_norm2d`.
        input_whitening: a form of `layers.input_whitening` in front, or "none". With dawnbench the
            convolution of prep is 1x1; with airbench an activation is between, and maps have 31 x 31 numbers.
        dirac_init: see `layers.init.dirac`; of all convolutions behind the first.
        seed: seed of the initial weights.
    """

    head_prefix = "linear."
    stages = ("prep.", "layer1", "layer2.", "layer3")
    side_multiple = 32

    def __init__(
        self,
        *,
        num_classes: int,
        widths: Sequence[int],
        activation: str,
        celu_alpha: float,
        pool_before_norm: bool,
        head_scale: float,
        norm_momentum: float,
        norm_eps: float,
        norm_scale: str,
        ghost_batch: int,
        input_whitening: str,
        dirac_init: bool,
        seed: int,
    ):
        super().__init__()
        prep, one, two, three = widths
        norm = partial(
            batch_norm2d, momentum=norm_momentum, eps=norm_eps, scale=norm_scale, ghost_batch=ghost_batch
        )
        first = {"act": activation, "celu_alpha": celu_alpha, "norm": norm}
        block = {**first, "identity": dirac_init}
        down = {"pool": 2, "pool_before_norm": pool_before_norm, **block}
        whitened, smaller = input_whitening != "none", input_whitening == "airbench"
        self.whiten = whitening_conv(input_whitening) if whitened else nn.Identity()
        self.whiten_act = activation_cell(activation, celu_alpha=celu_alpha) if smaller else nn.Identity()
        self.prep = ConvBlock(
            FORMS[input_whitening].channels if whitened else 3,
            prep,
            kernel_size=1 if input_whitening == "dawnbench" else 3,
            identity=dirac_init and whitened,
            **first,
        )
        self.layer1 = ConvBlock(prep, one, **down)
        self.layer1_res1 = ConvBlock(one, one, **block)
        self.layer1_res2 = ConvBlock(one, one, **block)
        self.layer2 = ConvBlock(one, two, **down)
        self.layer3 = ConvBlock(two, three, **down)
        self.layer3_res1 = ConvBlock(three, three, **block)
        self.layer3_res2 = ConvBlock(three, three, **block)
        self.pool = MaxPool2d(3 if smaller else 4)
        self.linear = dense(in_channels=three, out_channels=num_classes, bias=False)
        self.head_scale = head_scale
        initialise(self, seed=seed, weight=torch_default)

    def embed(self, x):
        """Features before the classifier, (N, 3, H, W) -> (N, widths[3]): the largest value of each map."""
        x = self.layer1(self.prep(self.whiten_act(self.whiten(x))))
        x = x + self.layer1_res2(self.layer1_res1(x))
        x = self.layer3(self.layer2(x))
        x = x + self.layer3_res2(self.layer3_res1(x))
        if x.shape[2:] != (
            self.pool.kernel_size,
            self.pool.kernel_size,
        ):  # of images of another size than 32 x 32
            return x.max(axis=(2, 3))
        return self.pool(x).reshape(x.shape[0], -1)

    def construct(self, x):
        logits = self.linear(self.embed(x))
        return logits if self.head_scale == 1 else logits * self.head_scale

    def fold(self) -> None:
        """Leaves convolutions with bias and a scaled classifier, for inference; training is over then.

        A normalisation behind a pooling stays (`pool_before_norm`): with a negative scale it turns largest
        values into smallest.
        """
        fold_layers(self)
        fold_factor(self.linear, self.head_scale)
        self.head_scale = 1
