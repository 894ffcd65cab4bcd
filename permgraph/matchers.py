"""Matchers of your own: a score between the units of two models, read off the moments of their activations.

    import numpy as np
    from permgraph.matchers import register

    register("magnitude", "absolute correlation", "https://…", lambda m: np.abs(m.correlation()))

In the file of your `file.py:factory`, or when your package is imported. On the command line, a function alone will do:
`--matcher scores.py:magnitude`. The assignment, the nesting of groups and the report are done for it.
"""

from permgraph.ir.moments import ProbeMoments
from permgraph.matching.matchers import MATCHERS, Matcher, register

__all__ = ["MATCHERS", "Matcher", "ProbeMoments", "register"]
