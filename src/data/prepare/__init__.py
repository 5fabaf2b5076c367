"""Making a data set on disk: python -m src.data.prepare."""
