# SPDX-License-Identifier: Apache-2.0
"""Exact classification metrics, reports and pictures."""
