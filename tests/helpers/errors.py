# SPDX-License-Identifier: Apache-2.0
"""How a call is refused."""

import pytest

from src.common.errors import UserError


def fails(act, *arguments, **options) -> str:
    """The message of the UserError that `act(*arguments, **options)` ends with; it is one line."""
    with pytest.raises(UserError) as caught:
        act(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
