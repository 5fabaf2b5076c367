"""The train step, mixed precision, EMA, checkpoints, records and the loop."""
