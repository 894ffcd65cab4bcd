"""What flows between the stages, and only that: frozen values, each of which is also a file.

model → Trace → PermSpec → Plan → Permutations → weights
                                  Moments ↗

>>> from permgraph.ir import Plan
>>> plan = Plan.load("plan.json")  # doctest: +SKIP
"""

from permgraph.ir.moments import Moments
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec, Place, Probe
from permgraph.ir.trace import Trace

__all__ = ["Group", "Moments", "PermSpec", "Permutations", "Place", "Plan", "Probe", "Trace"]
