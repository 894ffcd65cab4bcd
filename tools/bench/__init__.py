"""Benchmarks: what permgraph costs beside the least that the job must cost, and beside others that do it."""
