# SPDX-License-Identifier: Apache-2.0
"""One checkpoint file, a run's folder of them, and weights of others."""
