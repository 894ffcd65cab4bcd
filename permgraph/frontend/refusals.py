"""Refusals: why a network cannot be captured, in one sentence, and the advice that fits the cause."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

from torch import nn

from permgraph.errors import TraceError
from permgraph.frontend.agreement import GRADIENTS, outputs_of
from permgraph.frontend.arguments import Call, tensors_in
from permgraph.frontend.call_site import raised_at
from permgraph.frontend.flatten import FRAME, short
from permgraph.frontend.recorder import ForExportAlone, writes_outside


def without_values(module: nn.Module, call: Call) -> bool:
    """Whether the network cannot run, since a weight or an input is on the meta device."""
    return any(t.is_meta for t in (*module.parameters(), *module.buffers(), *tensors_in(call)))


def refusal(
    error: Exception, title: str, module: nn.Module, call: Call, second: Exception | None = None
) -> str:
    """The sentences for a network that torch.export cannot capture, nor (`second`) a run under the recorder."""
    if second is None:
        return (
            f"{title}: torch.export could not capture this network{_at(error)}: {_first(error)}. On the meta device"
            " there are no values that its code could read; give it with weights, for example by a factory that builds"
            " it on the CPU: then it is captured by running it."
        )
    if isinstance(second, ForExportAlone):
        return (
            f"{title}: it has {second}, which only torch.export follows, and torch.export could not capture this"
            f" network{_at(error)}: {_first(error)}. Write it without the one or the other."
        )
    if isinstance(second, TraceError):
        return f"{title}: {_ended(str(second))}"
    if "non-functional tensor" in str(second):
        return f"{title}: {writes_outside(raised_at(second))}."
    if "NestedTensor" in str(second) or "_nested_" in str(error) or _is_nested(error) or _is_nested(second):
        return (
            f"{title}: nested tensors{_at(error)} have no sizes that axes could be read from. Give a wrapper whose"
            " forward uses padded tensors."
        )
    if "does not require grad" in str(second):
        return (
            f"{title}: its code asks torch.autograd for gradients{_at(second)}, which a recorded run has not."
            f" {GRADIENTS}"
        )
    if problem := _own_failure(module, call):
        return (
            f"{title}: the network itself fails on these example inputs{_at(problem)}: {type(problem).__name__}:"
            f" {_first(problem)}. Give what its forward takes: forward{_signature(module)}."
        )
    return (
        f"{title}: torch.export could not capture this network{_at(error)}: {_first(error)}. Running it under a"
        f" recorder failed too{_at(second)}: {type(second).__name__}: {_first(second)}. Give a wrapper whose forward"
        " does without that line."
    )


def _is_nested(error: Exception) -> bool:
    """Whether it was raised inside torch's nested tensors."""
    frames = traceback.extract_tb(error.__traceback__)
    return any("torch/nested/" in Path(frame.filename).as_posix() for frame in frames)


def _own_failure(module: nn.Module, call: Call) -> Exception | None:
    """What the network raises when it simply runs."""
    try:
        outputs_of(module, call)
    except Exception as error:
        return error
    return None


def _signature(module: nn.Module) -> str:
    try:
        return str(inspect.signature(module.forward))
    except (TypeError, ValueError):
        return "(…)"


def _first(error: Exception) -> str:
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


def _ended(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _at(error: Exception) -> str:
    """ " at file.py:12", the line of the model's code."""
    frames = [f for f in FRAME.findall(str(error)) if "/torch/" not in f[0]]
    place = f"{short(frames[-1][0])}:{frames[-1][1]}" if frames else raised_at(error)
    return f" at {place}" if place else ""
