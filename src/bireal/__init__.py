"""Bi-Real Net: ResNets with convolutions of one bit and real-valued shortcuts."""
