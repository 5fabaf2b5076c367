"""What a network and its graphs consist of: cost, operators, documented platforms."""
