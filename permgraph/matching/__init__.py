"""Matching: from two models and samples to the permutations that align them.

calibration       runs both models over the samples; `observation` sees activations at the `probes`
accumulation      activations → sums that give every correlation, and add up
assignment        a score → the best one-to-one matching; large ones are `certified`, `ties` keep units in place
nested_assignment nested groups: heads, and channels inside heads
weights           matching by weights alone, with the scores of `weight_scores`
similarity        how alike two networks are, whatever the order of their units
matchers          the menu, and `match`
scores            what a matching is worth
"""
