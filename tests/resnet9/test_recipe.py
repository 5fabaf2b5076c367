# SPDX-License-Identifier: Apache-2.0
"""Where the input whitening of a run comes from: its training images, pretrained weights, its checkpoint."""

import numpy as np
import pytest

from src.data.binary import ImageSet
from src.layers.input_whitening import whitening_filters
from src.model_utils.config import check
from src.zoo import config_class_of, create_recipe
from tests.layers.test_input_whitening import pictures as smooth

NARROW = {"model": "resnet9", "widths": [4, 4, 8, 8]}


def pictures(count) -> ImageSet:
    """Whose patches have second moments far apart: of like ones, rounding turns the eigenvectors."""
    images = (128 + 100 * smooth(count, 32)).clip(0, 255).astype(np.uint8)
    return ImageSet(images, np.zeros(count, np.int32), ("a", "b"))


def started(images, **keys):
    """A new network and its recipe, as a run has them before its first step."""
    config = check({**NARROW, **keys}, config_class_of("resnet9"))
    recipe = create_recipe(config, {"train": images})
    network = recipe.network(num_classes=2)
    recipe.load_pretrained(network)
    return network, config


@pytest.mark.parametrize(
    ("keys", "eps", "chosen"),
    [
        ({"input_whitening": "dawnbench"}, 1e-2, range(7)),
        ({"input_whitening": "airbench", "seed": 3, "cutout": 8}, 5e-4, range(7)),
        ({"input_whitening": "airbench", "whitening_eps": 0.5, "whitening_images": 3}, 0.5, (0, 3, 6)),
    ],
)
def test_it_is_of_training_images_as_they_are(keys, eps, chosen):
    """Of no seed and no augmentation; of fewer images than there are, evenly from all of them."""
    images = pictures(7)
    network, config = started(images, **keys)
    mean, std = (np.reshape(value, (3, 1, 1)) for value in (config.image_mean, config.image_std))
    normalised = (images.images[list(chosen)].astype(np.float64) - mean) / std
    weight = network.whiten.weight.asnumpy()
    filters = whitening_filters(normalised, side=weight.shape[-1], eps=eps)
    np.testing.assert_allclose(weight[: len(filters)], filters, rtol=0, atol=1e-5)


def test_pretrained_weights_bring_their_own(tmp_path):
    first, _ = started(pictures(7), input_whitening="airbench")
    np.savez(tmp_path / "weights.npz", **{p.name: p.asnumpy() for p in first.get_parameters()})
    keys = {"pretrained_path": str(tmp_path / "weights.npz"), "pretrained_head": "keep"}
    second, _ = started(pictures(3), input_whitening="airbench", **keys)
    np.testing.assert_array_equal(second.whiten.weight.asnumpy(), first.whiten.weight.asnumpy())
