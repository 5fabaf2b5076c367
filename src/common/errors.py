"""The one exception that a user is meant to see."""


class UserError(Exception):
    """An expected failure: one line that names the file, key or card and the mend.

    The doors print it on standard error without a traceback and exit with code 2.
    """
