# SPDX-License-Identifier: Apache-2.0
"""Where am I running, and with which settings."""
