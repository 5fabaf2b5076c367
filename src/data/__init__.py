"""Images in: sources, augmentation, batches, and preparing and checking data sets."""
