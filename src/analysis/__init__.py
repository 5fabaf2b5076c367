# SPDX-License-Identifier: Apache-2.0
"""What a network and its graphs consist of: cost, operators, documented platforms."""
