"""The function check on what a user names: build the model, load its weights when it has any, measure the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import PlanError
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.symmetry.infer import infer
from permgraph.torch_modes import seeded
from permgraph.verification.check import Check
from permgraph.verification.function_check import verify
from permgraph.verification.inputs import random_inputs

if TYPE_CHECKING:
    from torch import nn

    from permgraph.frontend.sources import Source
    from permgraph.ir.trace import Trace


@dataclass(frozen=True)
class FunctionCheck:
    """A check of a model that was named.

    model        as it was typed
    groups       how many groups moved; log10_order: of the number of orders that they allow
    seeds        how often the check was made, each time with other noise and other permutations
    weights      "random", "loaded" (of a folder) or "own" (a factory's)
    check        the worst of them
    """

    model: str
    groups: int
    log10_order: float
    seeds: int
    weights: str
    check: Check
    mode: str = "exact"

    @property
    def kept(self) -> bool:
        return self.check.kept

    def to_json(self) -> dict[str, Any]:
        own = {k: getattr(self, k) for k in ("model", "groups", "log10_order", "seeds", "weights", "mode")}
        return own | self.check.to_json()

    @property
    def lines(self) -> list[str]:
        """In words: a sentence, and remarks."""
        verdict = "THE FUNCTION CANNOT BE JUDGED" if self.check.undecided else "THE FUNCTION IS NOT KEPT"
        verdict = "the function is kept" if self.kept else verdict
        mode = "" if self.mode == "exact" else f" (mode {self.mode}, which is not a symmetry)"
        times = self.check.trials * self.seeds
        return [
            f"{self.model}: {verdict}{mode}. {self.groups} elementary groups moved, {times} times, {self.weights} weights, float64: "
            f"largest relative change {self.check}.",
            *self.check.remarks(),
        ]


def check_model(
    model: str, plan: Plan | None = None, seeds: int = 1, free_output: bool = False, model_class: str = ""
) -> FunctionCheck:
    """Check all groups of MODEL, or those of a plan made for it, as the class that the plan was made for.

    Raises PlanError when the plan was made for another architecture; CheckError when nothing can be measured.
    """
    from permgraph.frontend.model_classes import class_of_plan
    from permgraph.frontend.sources import load_source

    if plan is not None and not model_class:
        model_class = class_of_plan(model, plan.spec)
    # Traced as `permgraph trace` does it: on the meta device some models take another path through their masks.
    trace = load_source(model, model_class=model_class).trace(model)
    source, weights = with_weights(model, model_class)
    spec: PermSpec | Plan
    if plan is not None:
        if trace.fingerprint != plan.fingerprint:
            raise PlanError(
                f"the plan was made for {plan.spec.model} (fingerprint {plan.fingerprint[:12]}), {model} is another "
                f"architecture ({trace.fingerprint[:12]}). Make a plan for it: permgraph plan {model}."
            )
        spec, whole, mode = plan, plan.spec, plan.mode
    else:
        spec = whole = infer(trace, free_output)
        mode = "exact"
    args, kwargs = random_inputs(source, trace)
    check = measure(source.module, args, spec, kwargs, seeds)
    return FunctionCheck(model, len(spec.groups), whole.log10_order, seeds, weights, check, mode)


def measure(
    module: nn.Module,
    args: tuple[Any, ...],
    spec: PermSpec | Plan,
    kwargs: Mapping[str, Any],
    seeds: int = 1,
) -> Check:
    """The worst of some checks, each with other noise and other permutations."""
    checks = [verify(module, args, spec, kwargs, seed) for seed in range(seeds)]
    return max(checks, key=lambda check: check.change / check.limit)


def measured_change(plan: Plan, trace: Trace, model: str, model_class: str = "") -> Plan:
    """The plan with the change it makes to the function of MODEL, which it was made for and which `trace` is of.

    Three digits: the others depend on the number of threads.
    """
    source, _ = with_weights(model, model_class)
    args, kwargs = random_inputs(source, trace)
    change = verify(source.module, args, plan, kwargs).change
    return replace(plan, change=float(f"{change:.2e}"))


def with_weights(model: str, model_class: str = "") -> tuple[Source, str]:
    """The model on the CPU: a folder's weights, a factory's own, or random ones."""
    from permgraph.frontend.sources import load_source

    with seeded(0):
        source = load_source(model, "cpu", model_class)
    folder = Path(model)
    if folder.is_dir() and any((*folder.glob("*.safetensors*"), *folder.glob("pytorch_model*.bin*"))):
        from permgraph.weights.encoder import open_encoder

        open_encoder(folder, model_class=model_class).load_into(source.module)
        return source, "loaded"
    return source, "own" if ":" in model else "random"
