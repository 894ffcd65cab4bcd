"""What the verbs share: from what was typed to a trace, a spec, a pair of encoders; and how things are said."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from permgraph.cli.options import DEFAULT_TRACE
from permgraph.errors import FileError, PlanError, TraceError, UsageError, reason

if TYPE_CHECKING:
    from permgraph.ir.plan import Plan
    from permgraph.ir.spec import PermSpec
    from permgraph.ir.trace import Trace
    from permgraph.matching.memory import Memory
    from permgraph.weights.encoder import Encoder


def trace_of(target: str | None, model_class: str = "") -> Trace:
    """The trace in a file, or of a MODEL traced now."""
    from permgraph.frontend.model_classes import refuse_class
    from permgraph.ir.trace import Trace

    if target is None or is_trace_file(target):
        refuse_class(model_class, target or DEFAULT_TRACE)
        return Trace.load(target or DEFAULT_TRACE)
    return capture_model(target, model_class)


def is_trace_file(target: str) -> bool:
    """Whether TRACE|MODEL is a file to read; all else is built."""
    path = Path(target)
    return path.suffix == ".json" and path.name != "config.json"


def subject_of(
    target: str | None, plan_file: Path | None, free_output: bool, model_class: str = ""
) -> tuple[Trace, PermSpec, Plan | None]:
    """What a picture shows: the trace, its groups, and the plan when TARGET or --plan names one."""
    from permgraph.ir.plan import Plan

    if target is not None and plan_file is None and kind_of(Path(target)) == "plan":
        plan_file, target = Path(target), None
    if plan_file is not None and target is None and not Path(DEFAULT_TRACE).exists():
        raise UsageError(
            f"{plan_file}: a picture needs the trace too, and {DEFAULT_TRACE} is not here. "
            f"Give both: TRACE --plan {plan_file}."
        )
    chosen = Plan.load(plan_file) if plan_file else None
    if chosen is not None and target is not None and not is_trace_file(target) and not model_class:
        model_class = _class_of_plan(target, chosen)
    found = trace_of(target, model_class)
    if chosen is not None and chosen.fingerprint != found.fingerprint:
        raise UsageError(
            f"{plan_file}: the plan was made for {chosen.spec.model}, another architecture than the trace of "
            f"{found.model}. Give both: TRACE --plan PLAN."
        )
    return found, chosen.spec if chosen else infer_spec(found, free_output, False), chosen


def capture_model(model: str, model_class: str = "") -> Trace:
    from permgraph.frontend.sources import load_source

    return load_source(model, model_class=model_class).trace()


def _class_of_plan(model: str | Path, plan: Plan) -> str:
    from permgraph.frontend.model_classes import class_of_plan

    return class_of_plan(model, plan.spec)


def infer_spec(found: Trace, free_output: bool, strict: bool) -> PermSpec:
    from permgraph.symmetry.infer import infer

    spec = infer(found, free_output)
    if strict and spec.unknown_ops:
        first = spec.unknown_ops[0]
        raise TraceError(
            f"--strict: {len(spec.unknown_ops)} calls of ops without a rule, the first {first.op} at {first.node} "
            f"({first.module or 'the network'}, {first.source}). A row to start from: {first.row}; see CONTRIBUTING.md, "
            "'Add an op rule'."
        )
    return spec


def measured(made: Plan, found: Trace, target: str | None, model_class: str = "") -> Plan:
    """The plan with the change it makes to the function of the MODEL that was typed.

    What a trace file says of its model is a label: nothing is built or imported by it.
    """
    if target is None or is_trace_file(target):
        say(
            f"Mode {made.mode} changes the function. By how much is measured on a MODEL only: "
            f"permgraph plan MODEL --groups {made.selection} --mode {made.mode}"
        )
        return made
    from permgraph.verification.verdict import measured_change

    return measured_change(made, found, target, model_class)


def pair_of(
    a: Path,
    b: Path,
    per_model_rate: bool,
    state: str = "",
    model_class: str = "",
    plan: Plan | None = None,
) -> tuple[Encoder, Encoder]:
    """Both models; `state` says which weights of single files that hold several. Folders are read as `model_class`, or
    as the class that the plan was made for."""
    from permgraph.weights.encoder import compare, open_encoder

    for path in (a, b):
        if not path.expanduser().exists():
            raise FileError(f"{path}: no such file or folder.")
    kind = model_class
    if plan is not None and not kind:
        kind = _class_of_plan(a, plan) or _class_of_plan(b, plan)
    one, other = (
        open_encoder(path, model_class=kind)
        if path.is_dir()
        else open_encoder(path, state=state, model_class=model_class)
        for path in (a, b)
    )
    compare(one, other, per_model_rate=per_model_rate)
    for encoder in (one, other):
        if encoder.model_class:
            _ = encoder.stored  # refuses weights without the head, before anything is run
        if model_class and plan is not None:
            _refuse_other_class(encoder, plan.spec)
    return one, other


def _refuse_other_class(encoder: Encoder, spec: PermSpec) -> None:
    """A plan of another class than the one that was named. Raises PlanError."""
    from permgraph.ir.names import canonical

    held = {canonical(name) for name in encoder.source.module.state_dict()}
    lacking = [n for n in spec.tensors if canonical(n) not in held and n not in spec.unused]
    if lacking:
        raise PlanError(
            f"--class {encoder.model_class}: {encoder.name} has no {lacking[0]!r} then, which the plan made for {spec.model} "
            "knows. Leave --class out, or plan the model with this --class."
        )


def matcher_of(matcher: str, absolute: bool) -> str:
    """The matcher that --matcher and --abs name."""
    if absolute and matcher not in ("correlation", "abs"):
        raise UsageError(f"--abs is a matcher of its own: leave out --matcher {matcher}.")
    return "abs" if absolute else matcher


def kind_of(path: Path) -> str:
    """What kind of permgraph file this is, "" when it is none."""
    if path.suffix != ".json" or not path.is_file():
        return ""
    try:
        with open(path, encoding="utf-8") as stream:
            head = stream.read(200)
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot read: {reason(error)}.") from error
    return "plan" if '"permgraph":"plan"' in head else "trace" if '"permgraph":"trace"' in head else ""


def next_step(*words: object) -> str:
    """A command to type, quoted for the shell."""
    return f"Next: {shlex.join(['permgraph', *map(str, words)])}"


def print_written(
    written: Sequence[Path], report: dict[str, Any], notes: Sequence[str], memory: Memory | None = None
) -> None:
    """What match and merge say with --json."""
    fields = {"written": list(map(str, written)), "report": report, "notes": list(notes)}
    print_json({**fields, **({"memory": memory.to_json()} if memory else {})})


def print_json(data: dict[str, Any]) -> None:
    print(json.dumps(data, indent=1))


def print_text(*lines: str) -> None:
    """Sentences, at the width of the terminal: no word is broken, and code to copy, indented by four, stays whole."""
    from permgraph.reporting.columns import paragraphs

    print("\n".join(paragraphs(_cleaned(lines))))


def say(*lines: str) -> None:
    """What is said beside the result goes to standard error, so that the result can be piped.

    Each argument is one line, whatever the names in it hold: control characters and line breaks are shown as escapes.
    That nobody can read it is no error.
    """
    with suppress(OSError, ValueError):
        print("\n".join(_cleaned(lines)), file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """Lines of a text, without control characters; the names in it are clean already, and break no line."""
    return "\n".join(_cleaned(text.split("\n")))


def _cleaned(lines: Iterable[str]) -> Iterator[str]:
    from permgraph.reporting.text import clean

    return (clean(line, 4000) for line in lines)
