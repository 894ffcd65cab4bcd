"""Claims: groups as somebody else describes them, and the verdict on each."""

from __future__ import annotations

from dataclasses import dataclass

from permgraph.ir.spec import IntArray


@dataclass(frozen=True)
class ClaimPlace:
    """Where the units of a claim lie on one axis of one tensor.

    units      coordinate of every unit on `axis`, shape (copies, size, m)
    rows       only where the order holds for some coordinates of another axis `rows_axis`: those, shape (copies, r)
    """

    tensor: str
    axis: int
    units: IntArray
    rows: IntArray | None = None
    rows_axis: int | None = None

    def __str__(self) -> str:
        return f"{self.tensor}[{self.axis}]"


@dataclass(frozen=True)
class Claim:
    """A group as somebody else describes it: the symmetric group on `size` units, in `copies` independent copies."""

    name: str
    size: int
    places: tuple[ClaimPlace, ...]
    copies: int = 1


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    contained   every permutation of the claim is an element of our groups
    reason      what tears, in words; "" when it would do with the `missing` places
    missing     places that would have to move along, and that the claim leaves out
    groups      names of our groups that the claim moves
    """

    claim: str
    contained: bool
    reason: str = ""
    missing: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        """Why it is not contained, in one line."""
        more = f" and {len(self.missing) - 3} more" if len(self.missing) > 3 else ""
        return self.reason or (f"leaves out {', '.join(self.missing[:3])}{more}" if self.missing else "")
