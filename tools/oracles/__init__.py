"""Judges of inference that share no code with it after the walk over the graph: nauty, the law, the brute-force bound."""
