# SPDX-License-Identifier: Apache-2.0
"""The one exception that a user is meant to see, and what others say in a line of it."""


class UserError(Exception):
    """An expected failure: one line that names the file, key or card and the mend.

    The doors print it on standard error without a traceback and exit with code 2.
    """


def first_line(error: Exception) -> str:
    """What a library's exception says in its first line; one that says nothing has its type's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
