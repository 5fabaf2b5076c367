"""BiT: transfer learning with ResNetV2."""
