# SPDX-License-Identifier: Apache-2.0
"""What the tests of the cloud share."""

import pytest

from tests.model_utils.modelarts.cloud import Cloud


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)
