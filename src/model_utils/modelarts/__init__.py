# SPDX-License-Identifier: Apache-2.0
"""Runs on ModelArts: what a door needs around it."""


def on_modelarts(settings=None):
    """For `common.cli.run(main, around=...)`: see `moxing_adapter.call`, which is imported at the call."""

    def around(main, arguments):
        from ..moxing_adapter import call

        return call(main, arguments, settings=settings)

    return around
