# SPDX-License-Identifier: Apache-2.0
"""Images in: sources, augmentation, batches, and preparing and checking data sets."""
