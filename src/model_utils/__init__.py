"""Where am I running, and with which settings."""
