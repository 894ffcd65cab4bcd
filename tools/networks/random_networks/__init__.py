"""Small random networks from all families of operations, one for every seed.

`random_network(seed)` returns (module in eval mode with random weights, example inputs), the same for the same
seed. Activations have shape (batch, time, channels); a few stages follow one another, some around a residual
connection. Channels are few, so that every claim about such a network can be tried by brute force.
"""

from networks.random_networks.build import FAMILIES, random_network

__all__ = ["FAMILIES", "random_network"]
