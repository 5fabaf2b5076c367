# SPDX-License-Identifier: Apache-2.0
"""Augmentation: of batches, and of single pictures."""
