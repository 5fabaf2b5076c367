"""MultiGrain: one embedding for classes, instances and copies."""
