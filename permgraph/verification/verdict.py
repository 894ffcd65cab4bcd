"""The law, on what a user names: build the model, load its weights when it has any, measure the change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.errors import PlanError
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.symmetry.infer import infer
from permgraph.tolerances import TOLERANCE
from permgraph.torch_modes import seeded
from permgraph.verification.function_check import tolerated, verify

if TYPE_CHECKING:
    from torch import nn

    from permgraph.frontend.sources import Source


@dataclass(frozen=True)
class Law:
    """Result of a verification.

    change   largest relative change of any output, float64, over all seeds
    weights  "random", "loaded" (of a folder) or "own" (a factory's)
    limit    what counts as no change: more than `TOLERANCE` only where rounding alone does more
    """

    model: str
    groups: int
    log10_order: float
    seeds: int
    change: float
    weights: str
    mode: str = "exact"
    limit: float = TOLERANCE

    @property
    def kept(self) -> bool:
        return self.change <= self.limit

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tolerance": self.limit, "kept": self.kept}

    def text(self) -> str:
        verdict = "the function is kept" if self.kept else "THE FUNCTION IS NOT KEPT"
        mode = "" if self.mode == "exact" else f" (mode {self.mode}, which is not a symmetry)"
        return (
            f"{self.model}: {verdict}{mode}. {self.groups} groups moved at random, {self.seeds} times, {self.weights} "
            f"weights, float64: largest relative change {self.change:.1e} (limit {self.limit:.0e})."
        )


def check_model(model: str, plan: Plan | None = None, seeds: int = 2, free_output: bool = False) -> Law:
    """Verify all groups of MODEL, or those of a plan made for it.

    Raises PlanError when the plan was made for another architecture.
    """
    from permgraph.frontend.capture import capture
    from permgraph.frontend.sources import load_source

    # Traced as `permgraph trace` does it: on the meta device some models take another path through their masks.
    bare = load_source(model)
    trace = capture(bare.module, bare.args, bare.kwargs, model)
    source, weights = with_weights(model)
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
    inputs = random_inputs(source)
    change, limit = measure(source.module, inputs, spec, source.kwargs, seeds)
    return Law(model, len(spec.groups), whole.log10_order, seeds, change, weights, mode, limit)


def measure(
    module: nn.Module, inputs: tuple[Any, ...], spec: PermSpec | Plan, kwargs: Mapping[str, Any], seeds: int
) -> tuple[float, float]:
    """The largest change over some seeds, and what counts as none there."""
    changes = [verify(module, inputs, spec, kwargs, seed) for seed in range(seeds)]
    worst = changes.index(max(changes))
    kept = changes[worst] <= TOLERANCE
    return changes[worst], TOLERANCE if kept else tolerated(module, inputs, kwargs, worst)


def measured_change(plan: Plan, model: str) -> Plan:
    """The plan with the change it makes to the function of MODEL, which it was made for."""
    source, _ = with_weights(model)
    return replace(plan, change=verify(source.module, random_inputs(source), plan, source.kwargs))


def with_weights(model: str) -> tuple[Source, str]:
    """The model on the CPU: a folder's weights, a factory's own, or random ones."""
    from permgraph.frontend.sources import load_source

    with seeded(0):
        source = load_source(model, device="cpu")
    folder = Path(model)
    if folder.is_dir() and any((*folder.glob("*.safetensors*"), *folder.glob("pytorch_model*.bin*"))):
        from permgraph.weights.encoder import open_encoder

        open_encoder(folder).load_into(source.module)
        return source, "loaded"
    return source, "own" if ":" in model else "random"


def random_inputs(source: Source) -> tuple[Any, ...]:
    """Inputs of the example's shapes with something in them: noise, or token ids."""
    import torch
    from torch.utils._pytree import tree_map_only

    generator = torch.Generator().manual_seed(1)

    def fill(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point() and not bool(tensor.any()):
            return torch.randn(tensor.shape, generator=generator)
        return tensor

    filled: tuple[Any, ...] = tree_map_only(torch.Tensor, fill, source.args)
    return filled
