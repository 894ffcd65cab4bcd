"""Verify: the law every plan is held to. Permuted weights compute the same function, measured in float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from permgraph.errors import PlanError
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.spec import PermSpec
from permgraph.planning.gather import Gather, apply_gathers, gathers
from permgraph.tolerances import MARGIN, MOST, TOLERANCE
from permgraph.torch_modes import eval_mode

if TYPE_CHECKING:
    import torch
    from torch import nn


def verify(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    spec: PermSpec | Plan,
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
    perms: Permutations | None = None,
) -> float:
    """Largest relative change of any output when a random element of the whole group is applied.

    Works on a float64 copy of the model; its norm scales, biases and running statistics are moved away from
    ones and zeros first, or a wrong spec would pass. The model itself is not touched.

    Args:
        spec: a PermSpec (all groups move) or a Plan (the selected ones do).
        perms: permutations to try instead of random ones.

    Returns:
        max |y' - y| / max |y| over all outputs; about 1e-15 for a true symmetry, infinite if an output is NaN.

    Raises:
        PlanError: the model has no weights (meta device) or lacks a tensor of the spec.
    """

    plan = spec if isinstance(spec, Plan) else whole(spec)
    state = _noisy_float64(model, seed)
    inputs = _double((tuple(example_inputs), dict(kwargs or {})))
    perms = perms or random_permutations(plan, seed)
    before = _run(model, state, inputs)
    after = _run(model, permute_state(state, gathers(plan, perms)), inputs)
    back = gathers(plan, perms.only(plan.selected).inverse(plan.spec), outputs=True)
    after = [_put_back(tensor, i, back) for i, tensor in enumerate(after)]
    if len(before) != len(after):
        return float("inf")
    return max((_change(a, b) for a, b in zip(before, after, strict=True)), default=0.0)


def tolerated(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> float:
    """The relative change that still counts as none.

    `TOLERANCE` for most networks. In one that is ill-conditioned at the weights of `verify` (a deep network whose
    activations grow from layer to layer), summing in another order changes more than that; so each weight is
    moved by a last bit, and a hundred times the change that this makes is allowed, at most 1e-4.
    """
    import torch

    state = _noisy_float64(model, seed)
    inputs = _double((tuple(example_inputs), dict(kwargs or {})))
    before = _run(model, state, inputs)
    generator = torch.Generator().manual_seed(seed)
    for tensor in state.values():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            tensor.mul_(1 + torch.finfo(torch.float64).eps * noise)
    after = _run(model, state, inputs)
    floor = max((_change(a, b) for a, b in zip(before, after, strict=True)), default=0.0)
    return max(TOLERANCE, min(MARGIN * floor, MOST))


def whole(spec: PermSpec) -> Plan:
    """The plan that moves every group."""
    return Plan(spec, tuple(g.name for g in spec.groups), selection="all")


def _noisy_float64(model: nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """The state in float64, with noise on every tensor so that no two units are alike by accident."""
    import torch

    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    if any(t.is_meta for t in tensors.values()):
        raise PlanError(
            "the model is on the meta device and has no weights: verify needs real or random weights."
        )
    persistent = set(model.state_dict(keep_vars=True))
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if not tensor.is_floating_point():
            state[name] = tensor
            continue
        state[name] = tensor = tensor.to(torch.float64, copy=True)
        if name not in persistent:
            continue
        noise = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
        spread = float(tensor.std()) if tensor.numel() > 1 else 0.0
        if name.endswith(("running_var", "weight_g", "original0")):
            tensor.mul_(0.5 + noise)
        else:
            tensor.add_((noise - 0.5) * (0.2 * spread if tensor.dim() > 1 and spread else 0.4))
    return state


def permute_state(state: dict[str, torch.Tensor], moves: list[Gather]) -> dict[str, torch.Tensor]:
    """A new state with the gathers applied. Raises PlanError when a tensor is missing."""

    moved = dict(state)
    for move in moves:
        if move.tensor not in state:
            raise PlanError(
                f"the model has no tensor {move.tensor!r}: the plan was made for another architecture."
            )
        moved[move.tensor] = apply_gathers(moved[move.tensor], [move])
    return moved


def _run(model: nn.Module, state: dict[str, torch.Tensor], inputs: tuple[Any, Any]) -> list[torch.Tensor]:
    """Outputs of the model with another state, in eval mode, everything in float64."""
    import torch
    from torch.func import functional_call
    from torch.utils._pytree import tree_leaves

    model = _shell(model)
    usual = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad(), eval_mode(model), _float64_mode():
            made = functional_call(model, state, inputs[0], inputs[1])
    finally:
        torch.set_default_dtype(usual)
    return [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]


def _shell(model: nn.Module) -> nn.Module:
    """A copy that shares the tensors: some modules keep what they computed from the weights of the last call.

    A module that cannot be copied is used as it is.
    """
    import torch

    held = (value for module in model.modules() for value in vars(module).values())
    tensors = (*model.parameters(), *model.buffers(), *(v for v in held if isinstance(v, torch.Tensor)))
    try:
        return copy.deepcopy(model, {id(t): t for t in tensors})
    except Exception:  # locks, open files, tensors in lists: whatever a module holds
        return model


def _float64_mode() -> Any:
    """Casts to a narrower float stay float64 (RMSNorm, softmax and rotary tables compute in float32)."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    narrow = (torch.float32, torch.float16, torch.bfloat16)

    class Float64Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
        supports_higher_order_operators = True

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = dict(kwargs or {})
            if kwargs.get("dtype") in narrow:
                kwargs["dtype"] = torch.float64
            args = tuple(torch.float64 if isinstance(a, torch.dtype) and a in narrow else a for a in args)
            if isinstance(func, torch._ops.HigherOrderOperator):
                return func(*args, **kwargs)  # a branch or a loop
            if not func._schema.is_mutable:
                args = tree_map_only(torch.Tensor, lambda t: t.double() if t.dtype in narrow else t, args)
            if func is torch.ops.aten._grouped_mm.default:
                return _grouped(*args[:3])
            return func(*args, **kwargs)

    return Float64Mode()  # type: ignore[no-untyped-call]


def _grouped(rows: torch.Tensor, matrices: torch.Tensor, stops: torch.Tensor) -> torch.Tensor:
    """A run of rows per expert times its matrix; torch's own kernel has no float64. Rows past the last stop are 0."""
    made = rows.new_zeros(rows.shape[0], matrices.shape[2])
    start = 0
    for matrix, stop in zip(matrices, stops.tolist(), strict=True):
        made[start:stop] = rows[start:stop] @ matrix
        start = stop
    return made


def _double(value: Any) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    return tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, value)


def _put_back(tensor: torch.Tensor, index: int, back: list[Gather]) -> torch.Tensor:

    mine = [g for g in back if g.tensor == f"output:{index}"]
    return apply_gathers(tensor, mine) if mine else tensor


def _change(before: torch.Tensor, after: torch.Tensor) -> float:
    import torch

    if before.shape != after.shape or bool(torch.isnan(after).any()) or bool(torch.isnan(before).any()):
        return float("inf")
    if not before.is_floating_point() and not before.is_complex():
        return float(not torch.equal(before, after))
    finite = torch.isfinite(before)
    if not torch.equal(finite, torch.isfinite(after)):
        return float("inf")
    size = float(before[finite].abs().max()) if bool(finite.any()) else 0.0
    return float((after - before)[finite].abs().max() / max(size, 1e-300)) if size else 0.0


def left_out(plan: Plan, place: int) -> Plan:
    """The plan with one of its steps forgotten: what the law must notice."""
    dropped = plan.steps[place]
    spec = replace(plan.spec, places=tuple(p for p in plan.spec.places if p is not dropped))
    return replace(plan, spec=spec.completed())
