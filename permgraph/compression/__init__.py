"""Compression: what groups are for when a network is made smaller. Orders for N:M sparsity, slices for structured pruning."""
