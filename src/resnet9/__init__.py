# SPDX-License-Identifier: Apache-2.0
"""ResNet9: the DAWNBench network for CIFAR-10."""
