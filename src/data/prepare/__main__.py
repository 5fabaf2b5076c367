# SPDX-License-Identifier: Apache-2.0
"""python -m src.data.prepare: see commands.py."""

from ...common.cli import run


def main(arguments):
    from .commands import main as prepare

    return prepare(arguments)


if __name__ == "__main__":
    run(main)
