# SPDX-License-Identifier: Apache-2.0
"""What the tests of ablations share: recipes of names, and arms of them."""

import pytest

from src.experiments.plan import arms_of
from src.model_utils.config import load_config, parse_overrides
from src.zoo import config_class_of


@pytest.fixture
def arms(tmp_path):
    """arms(NAME={key: value}, ...) -> the arms of such recipes, whose runs lie in tmp_path/out."""

    def make(words=(), views=(), **recipes):
        paths = []
        for name, keys in recipes.items():
            paths.append(tmp_path / f"{name}.yaml")
            lines = {"model": "resnet9", **keys}
            paths[-1].write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))

        def load(path):
            return load_config(parse_overrides(words), config_class_of=config_class_of, config_path=path)

        return arms_of([*map(str, paths)], load, output=tmp_path / "out", words=words, views=views)

    return make
