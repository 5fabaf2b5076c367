# SPDX-License-Identifier: Apache-2.0
"""`python -m src.tools.launch`: see src/parallel/launch/main.py."""

from ..common.cli import run


def main(arguments):
    from ..parallel.launch.main import main as launch

    return launch(arguments)


if __name__ == "__main__":
    run(main)
