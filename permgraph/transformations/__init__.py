"""Transformations: what units may be multiplied by, beside changing places. Signs, positive scales, rotations."""
