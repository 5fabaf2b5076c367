"""Augmentation: of batches, and of single pictures."""
