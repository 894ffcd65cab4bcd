"""Rules for ops of your own: what permgraph is told of an op that it does not know.

    from permgraph.rules import register

    register("mylib.scale", "... c, c -> ... c")

An op without a rule pins all it touches and is reported, with a row to start from. Call `register` or `op` in the file
of the factory that builds the network, or in a package that it imports: before the network is inferred. An equation
(`permgraph.axes.equation`) is enough for most ops; `op` takes a function of the op's arguments, by the names of its
schema:

    @op("mylib.rotate")
    def rotate(x: LabelledTensor, dim: int) -> LabelledTensor:
        return movement.take(x, dim, np.roll(np.arange(x.shape[dim]), 1))

What such a function may use: `contract` (one equation), `movement` and `joining` (what re-arranges coordinates),
`LabelledTensor.pin`. It raises `UnsupportedForm`, with a reason that the report shows, where it does not cover what it
was asked; any other exception is a mistake of the rule and ends inference with a RuleError. A tensor that it does not
use is pinned.
"""

from permgraph.axes import joining, movement
from permgraph.axes.contraction import contract
from permgraph.axes.equation import EquationError
from permgraph.axes.labelled_tensor import LabelledTensor
from permgraph.axes.refusal import UnsupportedForm
from permgraph.axes.rules import RULES, Call
from permgraph.axes.rules.table import equation, op, register

__all__ = [
    "RULES",
    "Call",
    "EquationError",
    "LabelledTensor",
    "UnsupportedForm",
    "contract",
    "equation",
    "joining",
    "movement",
    "op",
    "register",
]
