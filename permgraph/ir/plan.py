"""Plan: for each tensor and axis, what to permute or un-permute."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from permgraph.errors import PlanError
from permgraph.ir.files import read_json, write_json
from permgraph.ir.spec import Group, PermSpec, Place

FORMAT = 1

Step = Place  # a step of a plan is a place whose layout holds a selected group


@dataclass(frozen=True)
class Plan:
    """What has to happen to the weights so that the selected groups may be re-ordered.

    spec       the groups it was made from (whole: a plan file stands alone)
    selected   names of the groups that move; the others stay in order
    mode       "exact" keeps the function; "one-sided" and "untied" do not
    selection  what was typed
    taps       group → "entering" or "leaving", where the words of the selection say where to observe it
    broken     ties that a mode other than "exact" breaks, in words
    change     largest relative change of the function that was measured for such a mode, if it was
    """

    spec: PermSpec
    selected: tuple[str, ...]
    mode: str = "exact"
    selection: str = ""
    taps: dict[str, str] = field(default_factory=dict)
    broken: tuple[str, ...] = ()
    change: float | None = None

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The selected groups, parents before what lives within them."""
        chosen = set(self.selected)
        return tuple(g for g in self.spec.groups if g.name in chosen)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Places that hold a selected group, in graph order."""
        chosen = set(self.selected)
        steps = [p for p in self.spec.places if chosen & set(p.layout)]
        if self.mode == "one-sided":
            steps = [p for p in steps if p.side == "un-permute"]
        return tuple(steps)

    @property
    def fingerprint(self) -> str:
        """Of the architecture the plan was made for."""
        return self.spec.fingerprint

    @cached_property
    def digest(self) -> str:
        """Of everything the plan says; part of the file, so that an edited plan is noticed."""
        body = {k: v for k, v in self._body().items() if k != "steps"}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]

    def _body(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "selection": self.selection,
            "selected": list(self.selected),
            "taps": self.taps,
            "broken": list(self.broken),
            "change": self.change,
            "steps": [
                {"side": s.side, "tensor": s.tensor, "axis": s.axis, "layout": list(s.layout)}
                for s in self.steps
            ],
            "spec": self.spec.to_json(),
        }

    def to_json(self) -> dict[str, Any]:
        return {"permgraph": "plan", "format": FORMAT, "digest": self.digest, **self._body()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Raises PlanError when the contents do not fit their digest: a plan is not edited by hand."""
        spec = PermSpec.from_json(data["spec"])
        plan = cls(
            spec,
            tuple(data["selected"]),
            data["mode"],
            data["selection"],
            dict(data["taps"]),
            tuple(data["broken"]),
            data["change"],
        )
        if data.get("digest") != plan.digest or data.get("steps") != plan.to_json()["steps"]:
            raise PlanError(
                "the plan was changed after permgraph wrote it. Make it again with `permgraph plan`."
            )
        return plan

    def save(self, path: str | Path) -> None:
        write_json(self.to_json(), path)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan file. Raises FileError, PlanError."""
        from permgraph.ir.checks import check_plan

        data = read_json(path, "plan", FORMAT)
        try:
            plan = cls.from_json(data)
            check_plan(plan)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(
                f"{path}: not a complete plan ({error!r}). Make it again with `permgraph plan`."
            ) from error
        return plan
