"""The function check on weights from disk, made before anything is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import PermgraphError, PlanError, VerificationError
from permgraph.frontend.architectures import is_alias
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.verification.check import Check
from permgraph.verification.function_check import verify
from permgraph.verification.inputs import random_inputs

if TYPE_CHECKING:
    from permgraph.weights.encoder import Encoder

SKIPPED = "skipped on request (--no-check)"


@dataclass(frozen=True)
class Checked:
    """What became of a check: its result, or why there is none.

    name    of the model
    check   in round numbers; None when it was not made: `why` then says why, and else when, if not now
    """

    name: str
    check: Check | None = None
    why: str = ""

    def record(self) -> dict[str, Any]:
        """For the record that a written checkpoint carries."""
        if self.check is None:
            return {"checked": False, "why": self.why}
        return {
            "checked": True,
            "change": self.check.change,
            "limit": self.check.limit,
            "noise": self.check.noise,
            **({"why": self.why} if self.why else {}),
        }

    def text(self) -> str:
        if self.check is None:
            return f"Function check of the permuted {self.name}: not checked: {self.why}."
        remarks = " ".join(["", *self.check.remarks()])
        when = f" {self.why}" if self.why else ""
        return (
            f"Function check{when}: the permuted {self.name} computes what {self.name} computes: largest relative change "
            f"at most {self.check.change:.0e}, in float64.{remarks}"
        )


class EditedPlan(PlanError):
    """A plan that says other groups or places than inference finds, whatever its digest."""


def refuse_edited(encoder: Encoder, plan: Plan) -> None:
    """Hold a plan against a fresh inference of the architecture it was made for. Raises EditedPlan.

    Nothing is compared where the network is traced otherwise than it was for the plan: then the function check decides.
    """
    if plan.mode != "exact" or encoder.trace.fingerprint != plan.fingerprint:
        return
    from permgraph.symmetry.infer import infer

    fresh = infer(encoder.trace, plan.spec.free_output)
    for what in ("groups", "places", "values", "joined"):
        if getattr(fresh, what) != getattr(plan.spec, what):
            raise EditedPlan(
                f"the plan's {what} are not those that are inferred for {encoder.name}: it was edited, or "
                f"made by another version. Make it again: permgraph plan MODEL --groups {plan.selection or 'all'}"
            )


def with_check(plan: Plan, perms: Permutations, checked: Checked) -> Permutations:
    """Permutations whose report says what the check of them, by this plan, found."""
    if checked.check is None:
        return perms
    row = {**asdict(checked.check), "plan": plan.digest, "permutations": perms.digest}
    return replace(perms, report={**perms.report, "function_check": row})


def checked_before(plan: Plan, perms: Permutations, name: str) -> Checked | None:
    """The check that was made when these very permutations were matched; it holds for the weights they were matched on.

    `match` held the plan against a fresh inference too (`refuse_edited`), before it made the check: for this plan, by its
    digest, that need not be done again. Who relies on it has to prove that the weights are those that were matched.
    """
    row = dict(perms.report.get("function_check") or {})
    of = (row.pop("plan", ""), row.pop("permutations", ""), perms.origin.plan)
    if of != (plan.digest, perms.digest, plan.digest) or row.keys() != {f.name for f in fields(Check)}:
        return None
    check = Check(**row)
    return Checked(name, check, "when it was matched") if check.kept else None


def check_encoder(encoder: Encoder, plan: Plan, perms: Permutations) -> Checked:
    """Check that these very permutations keep the function of a model. Raises VerificationError when they do not."""
    if plan.mode != "exact" and plan.broken:
        return Checked(encoder.name, why=f"mode {plan.mode} does not keep the function")
    args, kwargs = random_inputs(encoder.source)
    if any(
        _is_empty_integer(leaf) for leaf in (*args, *kwargs.values())
    ):  # token ids: the trace has their table
        args, kwargs = random_inputs(encoder.source, encoder.trace)
    refuse_edited(encoder, plan)
    check = verify(encoder.module(), args, plan, kwargs, perms=perms.only(plan.selected))
    if not check.kept:
        fault = (
            "If `permgraph plan` made this plan, it is a fault of permgraph: please report the architecture."
        )
        raise VerificationError(
            f"{encoder.name}: the permuted weights change the output by {check}, relative, in float64. "
            f"Nothing was written. {' '.join([*check.remarks(), check.advice(fault)])}"
        )
    return Checked(encoder.name, check.in_round_numbers())


def check_checkpoint(
    path: str | Path, plan: Plan, perms: Permutations, state: str = "", model_class: str = ""
) -> Checked:
    """The same for a checkpoint, when its model can be built from its configuration; else it says why not.

    Of a folder the class is checked that the plan was made for. No code is run: neither of the folder, nor of a factory
    that the plan names. Raises VerificationError.
    """
    from permgraph.frontend.model_classes import class_of_plan
    from permgraph.weights.encoder import open_encoder

    path = Path(path)
    if ":" in plan.spec.model and not (path / "config.json").is_file():
        return Checked(
            path.name,
            why=f"the plan was made for {plan.spec.model}, and code named in a plan file is not run. Check it with: "
            f"permgraph verify {plan.spec.model} --plan PLAN",
        )
    architecture = plan.spec.model if is_alias(plan.spec.model) and not path.is_dir() else None
    try:
        kind = model_class or class_of_plan(path, plan.spec)
        return check_encoder(open_encoder(path, architecture, state, kind), plan, perms)
    except (VerificationError, EditedPlan):
        raise
    except (PermgraphError, NotImplementedError, RuntimeError) as error:
        return Checked(
            path.name, why=f"its model cannot be built or run ({str(error).rstrip('.').splitlines()[0]})"
        )


def _is_empty_integer(leaf: Any) -> bool:
    import torch

    return isinstance(leaf, torch.Tensor) and not leaf.is_floating_point() and not bool(leaf.any())
