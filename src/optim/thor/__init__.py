# SPDX-License-Identifier: Apache-2.0
"""THOR: curvature of layers by Kronecker factors, captured in the training step, inverted now and then."""
