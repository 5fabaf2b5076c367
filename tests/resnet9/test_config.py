# SPDX-License-Identifier: Apache-2.0
"""What the CIFAR networks refuse."""

import pytest

from src.resnet9.config import CifarNetConfig, ResNet9Config, ResNetConfig, VGGConfig


@pytest.mark.parametrize(
    ("config_class", "keys", "refused"),
    [
        (ResNet9Config, {"eval_image_size": 7}, "eval_image_size: 7 given, allowed: at least 8"),
        (
            ResNet9Config,
            {"image_size": 4, "train_crop": "random_resized"},
            "image_size: 4 given, allowed: at least 8",
        ),
        (CifarNetConfig, {"eval_image_size": 8}, "eval_image_size: 8 given, allowed: at least 9"),
        (VGGConfig, {"eval_image_size": 31}, "eval_image_size: 31 given, allowed: at least 32"),
        (VGGConfig, {"input_whitening": "airbench"}, "image_size: 32 given, allowed: at least 33"),
        (CifarNetConfig, {"skip_unpooled": True, "input_whitening": "none"}, "skip_unpooled: True given"),
        (CifarNetConfig, {"widths": (1, 2, 3, 4)}, "widths: .* allowed: a list of 3 whole numbers > 0"),
        (VGGConfig, {"stage_convs": (1, 1, 1)}, "stage_convs: .* allowed: a list of 5 whole numbers > 0"),
        (CifarNetConfig, {"pool_before_norm": False}, "pool_before_norm"),
        (
            CifarNetConfig,
            {"optimizer": "thor", "whitening_bias_epochs": 3.0},
            "whitening_bias_epochs: 3 given, allowed: 0 with optimizer thor",
        ),
        (ResNetConfig, {"pool_before_norm": True}, "pool_before_norm"),
    ],
)
def test_what_is_refused(config_class, keys, refused):
    with pytest.raises(ValueError, match=refused):
        config_class(**keys)


def test_sizes_that_it_takes():
    assert ResNet9Config(eval_image_size=8).eval_image_size == 8
    assert ResNet9Config(image_size=224, train_crop="resize").image_size == 224
    assert CifarNetConfig(eval_image_size=8, input_whitening="none").eval_image_size == 8
    assert ResNetConfig(eval_image_size=1).eval_image_size == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"whitening_eps": 0.1}, "whitening_eps: 0.1 given, allowed: 0 with input_whitening none"),
        ({"whitening_images": 960}, "whitening_images: 960 given, allowed: 0 with input_whitening none"),
        (
            {"ghost_batch": 48, "batch_size": 512},
            r"ghost_batch: 48 given, allowed: 0, or a divisor of batch_size \(512\) above 1",
        ),
        ({"ghost_batch": 1}, "ghost_batch: 1 given, allowed: 0, or a divisor of batch_size"),
        ({"ghost_batch": 32, "sync_bn": True}, "sync_bn: True given, allowed: false with a ghost_batch"),
        ({"celu_alpha": 0.3}, "celu_alpha: 0.3 given, allowed: 0.075 without activation celu"),
    ],
)
def test_what_does_nothing_or_does_not_fit_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        ResNet9Config(**keys)
