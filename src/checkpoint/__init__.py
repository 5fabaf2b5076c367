"""One checkpoint file, a run's folder of them, and weights of others."""
