"""THOR: curvature of layers by Kronecker factors, captured in the training step, inverted now and then."""
