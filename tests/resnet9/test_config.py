import pytest

from src.resnet9.config import ResNet9Config


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        ({"eval_image_size": 7}, "eval_image_size: 7"),
        ({"image_size": 4, "train_crop": "random_resized"}, "image_size: 4"),
    ],
)
def test_an_image_that_leaves_no_pixel_is_refused(keys, refused):
    with pytest.raises(ValueError, match=f"{refused} given, allowed: at least 8"):
        ResNet9Config(**keys)


def test_sizes_that_it_takes():
    assert ResNet9Config(eval_image_size=8).eval_image_size == 8
    assert ResNet9Config(image_size=224, train_crop="resize").image_size == 224
