"""Tolerances: every number below which a difference counts as none."""

from __future__ import annotations

# Function check: relative change of an output in float64. In a network that is ill-conditioned, MARGIN times what
# rounding alone does, and at most MOST; a forgotten step changes far more than that. What is above that, and at most TIES
# times what rounding alone does, cannot be told from rounding: it chooses between equal values.
TOLERANCE = 1e-9
MARGIN, MOST = 100, 1e-4
TIES = 10

# Statistics: a channel is dead when its standard deviation is below DEAD times its mean (a few units in the last place
# of float32), or its variance below ROUNDING times the mean square that the float64 sums hold.
DEAD, ROUNDING = 4 * 2.0**-23, 1e-13

# Weights of a merge: two numbers that add up to 1 so closely are the pair (A, B), not two weights of A.
PAIR = 1e-6
