"""Matching: from two models and samples to the permutations that align them.

clips, audio     files → batches of audio, as each model receives them
builder, moments activations → sums that give every correlation, and add up
assignment       a score → the best one-to-one matching
hierarchy        nested groups: heads, and channels inside heads
matchers         the menu, and `match`
measure          what a matching is worth
"""
