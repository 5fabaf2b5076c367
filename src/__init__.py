# SPDX-License-Identifier: Apache-2.0
"""Quartet: four image models on MindSpore with one training engine."""
