"""ResNet9: the DAWNBench network for CIFAR-10."""
