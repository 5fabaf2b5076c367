# SPDX-License-Identifier: Apache-2.0
"""The compute of a run by the rule of airbench and hlb-CIFAR10, whose README figures it gives.

A multiply-add is 2 FLOP. Counted are convolutions and dense layers, as `cost.measure` counts them. A training
image takes three forward passes: its own, the gradient of the activations and the gradient of the weights. A
test image takes one for each view. So airbench94 needs 476 updates x 1024 images x 3 x 2 x 118,147,360 FLOP =
0.3455 PFLOP, and 10,000 x 6 views 0.0142 more: 0.36 (K. Jordan, cifar10-airbench).

Not counted: normalisation, activations, pooling, the loss, the optimizer, augmentation, evaluations before
the last one, and the estimate of whitening and of statistics. They are small in FLOP, not always in time:
Muon's matrix products, the largest, are 0.45 % of airbench94_muon. A layer that stops learning
(`freeze_epochs`) counts one pass from then on. A layer that never learns, as the whitening, counts three, as
in airbench's own figures. 1-bit multiply-adds count as others.
"""

from dataclasses import dataclass

import numpy as np
from mindspore import nn

from ..data.binary import ImageSet
from ..evaluation.views import views_per_image
from ..optim.groups import with_own_rates
from ..training.build import TrainRecipe
from ..training.progress import Course
from .cost import measure

PFLOP = 1e15
_FLOP = 2  # of a multiply-add
_PASSES = 3  # of a training image


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a run on one card computes.

    Attributes:
        forward: multiply-adds of a training image's forward pass.
        test_forward: multiply-adds of a view of a test image, which may have another size.
        updates: of the whole run.
        epochs: of the training images.
        images: training images that the network sees, each as often as it comes.
        saved: multiply-adds of gradients that are not computed, as their layers stand still.
        views: test images that it sees, each as often as it has views.
    """

    forward: int
    test_forward: int
    updates: int
    epochs: float
    images: int
    saved: int
    views: float

    @property
    def step(self) -> int:
        """FLOP of a training image, forward and backward, while all layers are trained."""
        return _FLOP * _PASSES * self.forward

    @property
    def training(self) -> int:
        """FLOP of all updates."""
        return self.step * self.images - _FLOP * self.saved

    @property
    def test(self) -> float:
        """FLOP of the last evaluation."""
        return _FLOP * self.test_forward * self.views

    @property
    def pflop(self) -> float:
        """Of training and the last evaluation together, in 10^15 FLOP."""
        return (self.training + self.test) / PFLOP


def batches_an_epoch(recipe: TrainRecipe, *, images: int, num_classes: int) -> int:
    """How many batches a run on one card has an epoch, with so many training images and classes."""
    config = recipe.config
    if config.examples_per_class:
        images = min(images, config.examples_per_class * num_classes)
    stand_in = _stand_in(images, num_classes, side=config.crop_pad + 1)
    return len(recipe.changed(sources={"train": stand_in}).train_batches(rank=0, size=1))


def compute_of(recipe: TrainRecipe, *, epoch: int, test_images: int, num_classes: int = 10) -> Compute:
    """The compute of a run with the recipe's config; how long that is, the trainer's own `Course` says.

    Args:
        recipe: of a config. A key that a run fills in from its data (`hyper_rule`) counts as it stands.
        epoch: batches an epoch.
        test_images: of the test set.
        num_classes: classes of the data set.

    Raises:
        UserError: the network does not take images of the config's size, or the run makes no update.
    """
    config = recipe.config
    course = Course.of(config, epoch=epoch, cards=1)
    network = recipe.network(num_classes=num_classes)
    trained = _trained_updates(recipe, network, course)
    sides = config.image_size, recipe.image_size
    forward = {side: _layers(network, side) for side in dict.fromkeys(sides)}
    layers, test_layers = (forward[side] for side in sides)
    still = {name: course.updates - trained.get(f"{name}.weight", course.updates) for name in layers}
    return Compute(
        forward=sum(layers.values()),
        test_forward=sum(test_layers.values()),
        updates=course.updates,
        epochs=course.steps / course.epoch,
        images=course.steps * course.batch,
        saved=sum((_PASSES - 1) * layers[name] * still[name] for name in layers)
        * (course.batch * course.accumulate),
        views=test_images * views_per_image(config.tta, config.tta_share),
    )


def _layers(network: nn.Cell, side: int) -> dict[str, int]:
    """The multiply-adds of each layer by its name."""
    return {cell.name: cell.multiply_adds for cell in measure(network, image_size=side).cells}


def _trained_updates(recipe: TrainRecipe, network: nn.Cell, course: Course) -> dict[str, int]:
    """For how many updates a parameter is trained, by its name, where it is for a part of the run."""
    groups = with_own_rates(
        recipe.param_groups(network, recipe.loss(rank=0, size=1)),
        np.zeros(course.updates),
        updates_per_epoch=course.epoch / course.accumulate,
        course="cut",
    )
    return {p.name: len(g.rates) for g in groups if g.rates is not None for p in g.parameters}


def _stand_in(images: int, num_classes: int, *, side: int) -> ImageSet:
    """A data set of that many images, in the memory of one until a crop pads them."""
    pixels = np.broadcast_to(np.uint8(0), (images, 3, side, side))
    labels = np.broadcast_to(np.int32(0), images)
    return ImageSet(pixels, labels, tuple(map(str, range(num_classes))))
