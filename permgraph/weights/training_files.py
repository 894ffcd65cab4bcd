"""What training files hold beside the weights: which of their dicts is the model, its running average, the settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from permgraph.errors import FileError
from permgraph.weights.names import first
from permgraph.weights.unpickling import Inert, Stored, holds_tensor

NESTED = ("model", "state_dict", "model_state_dict", "model_weight", "module", "weights", "params", "net")
AVERAGES = ("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "_ema", "averaged", "swa")
State = dict[str, Stored]


def chosen_state(path: Path, content: Any, state: str = "") -> State:
    """The tensors of one state of what was pickled, by name; values that hold no numbers are left out.

    state   "" for the model, "ema" for its running average wherever a library keeps it, or a key of the file, the parts
            of a nested one separated by dots

    Raises FileError when there is none, or when it holds a tensor of a kind that is not read.
    """
    if not isinstance(content, dict):
        raise FileError(f"{path}: holds a {_kind(content)}, expected a dict of tensors.")
    if state:
        return _named_state(path, content, state)
    found = _plain(path, _model(content))
    if not found:
        raise FileError(
            f"{path}: holds no tensors (looked in the dict itself and under {', '.join(NESTED)}); "
            f"its keys are {', '.join(map(repr, list(content)[:10]))}."
        )
    return {k: v for k, v in found.items() if _average_of(k) is None} or found


def _model(content: dict[Any, Any]) -> dict[Any, Any]:
    """The dict in which the weights are, at most two levels down."""
    for name in NESTED:
        inner = content.get(name)
        if isinstance(inner, dict):
            deeper = _model(inner)
            if any(isinstance(v, Stored) for v in deeper.values()):
                return deeper
    return content


def _named_state(path: Path, content: dict[Any, Any], state: str) -> State:
    found = next(_states(path, content, state), {})
    if not found:
        names = [str(k) for k, v in content.items() if isinstance(v, (dict, Inert))]
        raise FileError(
            f"{path}: no state {state!r} with tensors in it; it holds {first(names) or 'no other state'}."
        )
    return found


def _states(path: Path, content: dict[Any, Any], state: str) -> Iterator[State]:
    names = AVERAGES if state == "ema" else (state,)
    model = _model(content)
    extra = content.get("extra_state")
    for place in (content, model, *([extra] if isinstance(extra, dict) else [])):
        for wanted in names:
            inner: Any = place
            for part in [wanted] if wanted in place else wanted.split("."):
                inner = inner.get(part) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                yield _plain(path, _model(inner))
    if state == "ema":
        found = _plain(path, model)
        yield {name: tensor for key, tensor in found.items() if (name := _average_of(key)) is not None}


def _average_of(key: str) -> str | None:
    """The name of the tensor whose running average a key holds: `ema_model.fc.weight` beside `fc.weight`."""
    head, _, rest = key.partition(".")
    if head not in ("ema_model", "model_ema", "ema", "_ema") or not rest:
        return None
    return rest.removeprefix("module.")


def _plain(path: Path, state: dict[Any, Any]) -> State:
    strange = [str(k) for k, v in state.items() if isinstance(v, Inert) and _is_tensor(v)]
    if strange:
        kind = state[strange[0]].name if strange[0] in state else "unknown"
        raise FileError(
            f"{path}: {first(strange)}: tensors of a kind that is not read ({kind}); only plain dense tensors can be "
            "permuted. A quantised or sparse model has to be converted first."
        )
    return {str(k): v for k, v in state.items() if isinstance(v, Stored)}


def _is_tensor(value: Inert) -> bool:
    return value.name.startswith(("torch._utils", "torch._tensor")) or holds_tensor(value)


def settings_of(content: Any) -> dict[str, Any]:
    """Settings of the model and of the task.

    Kept by fairseq in `args` (a Namespace) or `cfg` (an OmegaConf or a dict; a fine-tuned model's own under w2v_args), by
    s3prl in `task_cfg` and `model_cfg`, by Lightning in `hyper_parameters`.
    """
    found: dict[str, Any] = {}
    if isinstance(content, dict):
        cfg = fields(content.get("cfg"))
        args = content.get("args")
        sections = [content.get(name) for name in ("hyper_parameters", "task_cfg", "model_cfg")]
        sections += [args, cfg.get("task"), cfg.get("model")]
        for outer in (fields(args), fields(cfg.get("model"))):
            inner = fields(_value(outer.get("w2v_args")))
            sections += [inner, _value(inner.get("task")), _value(inner.get("model"))]
        for section in sections:
            found |= {k: _value(v) for k, v in fields(section).items()}
    return {k: v for k, v in found.items() if isinstance(v, (bool, int, float, str))}


def fields(value: Any) -> dict[str, Any]:
    """The fields of a dict, or of an object that was read as a stub."""
    if isinstance(value, Inert):
        value = value.held if value.held is not None else next(iter(value.args), None)
    content = value.get("_content", value) if isinstance(value, dict) else {}  # OmegaConf's DictConfig
    return {str(k): v for k, v in content.items()} if isinstance(content, dict) else {}


def _value(value: Any) -> Any:
    """OmegaConf wraps each value in a node."""
    return (
        value.held.get("_val")
        if isinstance(value, Inert) and isinstance(value.held, dict) and "_val" in value.held
        else value
    )


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Inert) else type(value).__name__
