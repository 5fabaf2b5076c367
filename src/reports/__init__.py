# SPDX-License-Identifier: Apache-2.0
"""Pages about runs: one HTML file each, which opens offline."""
