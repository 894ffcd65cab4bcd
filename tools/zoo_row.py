"""One row of the zoo: the stages that a network goes through, and the limits on each."""

from __future__ import annotations

import copy
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from zoo_models import Entry
from zoo_models.folder import check_folder
from zoo_table import Record

# Seconds of CPU time, so that a busy machine changes no result.
LIMITS = {"build": 240.0, "capture": 150.0, "infer": 150.0, "verify": 240.0, "folder": 200.0, "bound": 40.0}
TOLERANCE = 1e-9
SMALL = 300_000  # parameters of a network whose exchanges outside the group are tried


def may_be_bounded(record: Record) -> bool:
    """Whether exchanges outside the group are tried: of small networks that keep their function and draw nothing."""
    return record["status"] == "ok" and record["params"] <= SMALL and not record.get("random")


HELD = (
    "error",
    "limit",
    "status",
    "folder",
    "bound",
)  # what follows from the groups of a network, not from how they were found


def _holds(known: Record, record: Record) -> bool:
    """Whether all checks of a row that passed were made of the same network and the same groups."""
    same = all(known.get(name) == record[name] for name in ("spec", "kind", "params", "random"))
    return same and known["status"] == "ok" and known.get("folder", {"status": "ok"})["status"] == "ok"


class Late(Exception):
    """A stage took longer than its limit."""


def run(entry: Entry, pipe: Connection, memory: int, bound: bool = True, known: Record | None = None) -> None:
    """The work of one process: a record is sent through the pipe, and the stage before it starts."""
    resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    signal.signal(signal.SIGPROF, _late)
    record: Record = {"collection": entry.collection, "model": entry.name, "seconds": {}}
    try:
        for stage in stages(entry, record, bound, known):
            pipe.send(stage)
    except Exception as error:  # the reason is the result
        stage = record.pop("stage", "build")
        if stage in ("folder", "bound"):
            record[stage]["reason"] = _reason(error)
        else:
            record["status"] = {"build": "not built", "capture": "not captured"}.get(
                stage, f"failed in {stage}"
            )
            record["reason"] = _reason(error)
    record.pop("stage", None)
    pipe.send(record)


def _late(*_: object) -> None:
    raise Late("took too long")


def _reason(error: BaseException) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    text = re.sub(r"/\S*?site-packages/", "", text)  # the table is of no machine
    return f"{type(error).__name__}: {text}"[:400]


def stages(entry: Entry, record: Record, bound: bool = True, known: Record | None = None) -> Iterator[str]:
    """Build, capture, infer, verify, save and load; yields each stage's name before it starts and fills the record.

    known: the row of the same versions of the libraries; where the same groups are inferred, its checks hold.
    """
    import torch

    from permgraph.frontend.capture import capture
    from permgraph.symmetry.infer import infer
    from permgraph.verification.verdict import measure

    clock = _Clock(record)
    torch.manual_seed(0)
    yield clock.start("build")
    net, args, kwargs = entry.build()
    net = net.eval().float()
    record["params"] = sum(p.numel() for p in net.parameters())
    record["kind"] = type(net).__name__
    plain = _outputs(net, args, kwargs)
    if problem := _unusable(plain):
        raise RuntimeError(problem)
    varies = _differ(plain, _outputs(net, args, kwargs))
    yield clock.start("capture")
    trace = capture(net, args, kwargs)
    if varies and not trace.random:
        raise RuntimeError("two identical forwards differ, and no random op explains it")
    record["random"] = len(trace.random)
    record["nodes"] = len(trace.nodes)
    yield clock.start("infer")
    spec = infer(trace)
    record["groups"] = len(spec.groups)
    record["log10_order"] = round(spec.log10_order, 1)
    record["unknown"] = dict(Counter(u.op for u in spec.unknown_ops))
    record["frozen"] = spec.frozen
    record["spec"] = replace(spec, fingerprint="").digest
    if known is not None and _holds(known, record):
        clock.stop()
        record |= {name: known[name] for name in HELD if name in known}
        record["seconds"] = known["seconds"] | record["seconds"]
    else:
        yield clock.start("verify")
        check = measure(net, args, spec, kwargs, seeds=2)
        record["error"] = float(f"{check.change:.2g}")
        if check.limit > TOLERANCE:
            record["limit"] = float(f"{check.limit:.2g}")  # rounding alone changes this network by more
        record["status"] = "ok" if check.kept else "unsound"
        if entry.collection == "transformers":
            record["folder"] = {"status": "failed", "reason": "took too long"}
            yield clock.start("folder")
            record["folder"] = check_folder(entry.build()[0].eval().float(), spec)
    if bound and may_be_bounded(record) and "beyond" not in record.get("bound", {}):
        record["bound"] = {"reason": "took too long"}
        yield clock.start("bound")
        record["bound"] = _bound(net, args, kwargs, spec)
    clock.stop()


def _bound(net: Any, args: Any, kwargs: Any, spec: Any) -> Record:
    """What the brute-force bound finds: exchanges of two units that keep the function and are not in the group.

    On other weights than the network begins with: biases of 0 and scales of 1 are moved without a change, so that
    no exchange which needs them would be found.
    """
    from networks.randomise import randomise
    from oracles.bound import above

    from permgraph.frontend.experts import experts_by_index

    net = randomise(copy.deepcopy(net))
    with experts_by_index(net):  # the other way of running them knows no float64
        beyond = above(net, args, spec, pairs=1, kwargs=kwargs)
    axes = [sorted(f"{tensor}[{axis}]" for tensor, axis, _ in move) for move in beyond]
    moved = {(tensor, axis) for move in beyond for tensor, axis, _ in move}
    said = sorted({pin.reason for pin in spec.pinned if (pin.tensor, pin.axis) in moved})
    return {"beyond": len(beyond), "axes": axes[:3], "said": said} if beyond else {"beyond": 0}


class _Clock:
    """CPU seconds per stage, and the alarm that ends one."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.began = 0.0

    def start(self, stage: str) -> str:
        self.stop()
        self.record["stage"], self.began = stage, time.process_time()
        signal.setitimer(signal.ITIMER_PROF, LIMITS[stage])
        return stage

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if "stage" in self.record:
            self.record["seconds"][self.record["stage"]] = round(time.process_time() - self.began, 2)


def _outputs(net: Any, args: Any, kwargs: Any) -> list[Any]:
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        return [x for x in tree_leaves(net(*args, **kwargs)) if isinstance(x, torch.Tensor)]


def _unusable(one: list[Any]) -> str:
    import torch

    if not one:
        return "no tensor among the outputs"
    if any(torch.isnan(x).any() for x in one if x.is_floating_point()):
        return "an output is NaN with random weights"
    return ""


def _differ(one: list[Any], two: list[Any]) -> bool:
    import torch

    return len(one) != len(two) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(one, two, strict=False)
    )
