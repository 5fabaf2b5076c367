# SPDX-License-Identifier: Apache-2.0
"""MultiGrain: one embedding for classes, instances and copies."""
