# SPDX-License-Identifier: Apache-2.0
"""Names that config keys choose from, importable without MindSpore; the cells are in the modules beside."""

ACTIVATIONS = ("relu", "celu", "gelu", "silu", "leaky_clip", "clip", "approx_sign", "ste_sign")
INPUT_WHITENING = ("none", "dawnbench", "airbench")
NORM_SCALES = ("trained", "fixed")
PADDINGS = ("symmetric", "same")
STEMS = ("imagenet", "small")
WEIGHT_GRADIENTS = ("clipped", "scaled_identity")
