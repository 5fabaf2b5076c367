# SPDX-License-Identifier: Apache-2.0
"""Bi-Real Net: ResNets with convolutions of one bit and real-valued shortcuts."""
