# SPDX-License-Identifier: Apache-2.0
"""BiT: transfer learning with ResNetV2."""
