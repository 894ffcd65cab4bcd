"""Check: the result of a function check, a number that knows what it was measured with."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from permgraph.ir.notebook import html_table
from permgraph.tolerances import TIES, TOLERANCE


@dataclass(frozen=True)
class Check:
    """How much a network's function changes when its units are re-ordered.

    change    largest relative change of any output over all trials: max |y' - y| / max |y|, in float64; infinite
              where an output became NaN, or a shape or the number of outputs changed
    limit     what counts as no change: `TOLERANCE`, or more in a network that rounding alone changes by more
    trials    how many permutations were tried
    noise     how much noise the weights had: 1, 0.1, or 0 for the network's own weights
    random    random ops in the network; their results were replaced by constants
    control   largest change with one tensor of every group left out of step: what this check can notice. None when
              no group can move
    groups    on failure: the smallest set of groups that was found to change the function by itself
    tensors   on failure: the smallest set of tensors that was found to be wrong
    remedy    on failure: what would keep the function, in words: "a.weight stays in order", "a.weight[1] moves too"
    nan       share of the output values that are NaN before any unit moves, and so cannot be compared
    rounding  largest relative change when the weights move by their last bits and no unit moves; 0 where it was not measured,
              since `change` is below `TOLERANCE`

    It compares with numbers by its change: `check < 1e-9`.
    """

    change: float
    limit: float = TOLERANCE
    trials: int = 1
    noise: float = 1.0
    random: tuple[str, ...] = ()
    control: float | None = None
    groups: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    remedy: str = ""
    nan: float = 0.0
    rounding: float = 0.0

    @property
    def kept(self) -> bool:
        """Whether the function is kept."""
        return self.change <= self.limit

    @property
    def undecided(self) -> bool:
        """Whether rounding changes the function as much as the new order does: it chooses between values that are equal."""
        return not self.kept and self.change <= TIES * self.rounding

    @property
    def blind(self) -> bool:
        """Whether a tensor out of step would not have been noticed either."""
        return self.control is not None and self.control <= self.limit

    def __float__(self) -> float:
        return self.change

    def __lt__(self, other: float | Check) -> bool:
        return self.change < float(other)

    def __le__(self, other: float | Check) -> bool:
        return self.change <= float(other)

    def __gt__(self, other: float | Check) -> bool:
        return self.change > float(other)

    def __ge__(self, other: float | Check) -> bool:
        return self.change >= float(other)

    def __format__(self, form: str) -> str:
        return format(self.change, form) if form else str(self)

    def __str__(self) -> str:
        return f"{self.change:.1e} (limit {self.limit:.0e})"

    def _repr_html_(self) -> str:
        rows = [(name, value) for name, value in self.to_json().items() if value not in ((), "", None)]
        title = f"The function is {'kept' if self.kept else 'NOT kept'}: largest relative change {self}"
        return html_table(title, ("what", "value"), rows, len(rows))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.kept, "blind": self.blind, "undecided": self.undecided}

    def advice(self, otherwise: str) -> str:
        """What to do where this check kept something from being written: `otherwise`, unless it could not judge."""
        return (
            "Where that is known and meant, `--no-check` writes it and says so."
            if self.undecided
            else otherwise
        )

    def in_round_numbers(self) -> Check:
        """The same for files: numbers that do not tell in which order sums were taken, so not the number of threads.

        `change` and `limit` are powers of ten that are not exceeded, `change` at least a thousandth of the limit, which rounding
        stays far below; `control` has two digits.
        """
        limit = _power_of_ten(self.limit)
        return replace(
            self,
            rounding=float(f"{self.rounding:.1e}"),
            change=_power_of_ten(max(self.change, limit / 1000)),
            limit=limit,
            control=None if self.control is None else float(f"{self.control:.1e}"),
        )

    def remarks(self) -> list[str]:
        """What has to be said beside the number: whole sentences."""
        lines = []
        if not self.kept and self.groups:
            lines.append(f"Moving {_some(self.groups)} alone changes the function.")
            if self.remedy:
                lines.append(f"It is kept when {self.remedy}.")
        if self.undecided:
            lines.append(
                f"The last bits of the weights alone change the output by {self.rounding:.1e}: the network chooses between "
                "values that are equal but for rounding (topk, argmax, sort, a comparison), so that no order of units can "
                "be judged by its output."
            )
        if self.noise == 0.0:
            lines.append("With noise on the weights the network gives NaN, so its own weights were used.")
        elif self.noise < 1.0:
            lines.append(
                f"With more noise the network gives NaN: the weights had {self.noise:g} of the usual."
            )
        if self.random:
            lines.append(
                f"The network is random ({_some(self.random)}): constants stood for what these ops draw."
            )
        if self.nan:
            lines.append(f"{self.nan:.0%} of the output is NaN in any order and was not compared.")
        if self.blind:
            lines.append(
                "A tensor left out of step does not change the output either: at these weights and inputs the check "
                "cannot notice a wrong plan."
            )
        return lines


def _power_of_ten(value: float) -> float:
    """The smallest one that is not below a number above 0."""
    return float(f"1e{math.ceil(math.log10(value) - 1e-9)}") if math.isfinite(value) else value


def _some(names: tuple[str, ...], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
