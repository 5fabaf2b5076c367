import pytest

from src.resnet9.config import ResNet9Config


@pytest.mark.parametrize(
    ("keys", "refused"),
    [
        ({"eval_image_size": 64}, "eval_image_size: 64"),
        ({"eval_image_size": 16}, "eval_image_size: 16"),
        ({"image_size": 64, "train_crop": "random_resized"}, "image_size: 64"),
    ],
)
def test_a_size_that_the_network_does_not_take_is_refused_in_words(keys, refused):
    with pytest.raises(ValueError, match=f"{refused} given, allowed: 32 to 63"):
        ResNet9Config(**keys)


def test_sizes_that_it_takes():
    assert ResNet9Config(eval_image_size=40).eval_image_size == 40
    assert ResNet9Config(image_size=63, train_crop="resize").image_size == 63
