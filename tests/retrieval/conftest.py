# SPDX-License-Identifier: Apache-2.0
"""What several tests of retrieval share."""

from pathlib import Path

import pytest

from tests.helpers.indexes import draw


@pytest.fixture
def photos(tmp_path) -> Path:
    for number in range(7):
        draw(tmp_path / "photos" / f"{'ab'[number % 2]}/{number}.png", number)
    return tmp_path / "photos"
