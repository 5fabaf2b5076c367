"""`python -m src.tools.launch`: see src/parallel/launch/main.py."""

from ..common.cli import run
from ..parallel.launch.main import main

if __name__ == "__main__":
    run(main)
