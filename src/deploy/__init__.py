"""Export, parity and inference."""
