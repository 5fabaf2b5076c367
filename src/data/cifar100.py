"""CIFAR-100, which is laid out as CIFAR-10 except that a record begins with a coarse and a fine label.

The coarse label (one of 20) is passed over; the fine one (one of 100) is the class.
"""

import re

from .binary import Layout

CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
    "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree",
    "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree",
    "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit",
    "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe",
    "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

CIFAR100 = Layout(
    name="cifar100",
    title="CIFAR-100",
    folder_name="cifar-100-binary",
    classes_name="fine_label_names.txt",
    train_name=re.compile(r"train\.bin"),
    test_name="test.bin",
    label_bytes=2,
    official_sizes={"train.bin": 50_000, "test.bin": 10_000},
    official_classes=CLASSES,
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    python_folder_name="cifar-100-python",
    python_names=("meta", "train"),
)
