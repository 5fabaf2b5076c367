"""Commands beside the doors: python -m src.tools.NAME."""
