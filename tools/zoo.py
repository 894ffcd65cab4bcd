"""Check the function over collections of networks and keep a table of what was found.

    python tools/zoo.py --collection torchvision --resume     run what has no result yet
    python tools/zoo.py --only 'resnet*'                      run some again
    python tools/zoo.py --summary --json                      counts from the stored results
    python tools/zoo.py --table                               write docs/zoo.md and docs/folders.md from them

torchvision and timm are needed here only: pip install --no-deps torchvision timm && pip install pillow

Every network is built with random weights, captured, inferred and verified (a random element of the whole
group in which every group moves, float64, two seeds) in a process of its own with limits on time and memory. Networks
that draw random values run as a user runs them. Those of transformers are saved by `save_pretrained` in shards too, the
folder is permuted, and `from_pretrained` must give the tensors of `permgraph.apply` on the network's own state, bit for
bit. Of networks with few parameters, exchanges of units outside the group are tried, too (`oracles.bound`, by brute force:
what is found there was missed). Results are one JSON line per network in docs/zoo.jsonl, with a digest of the code that inferred the groups: a row of
other code is stale, counted as such, and `--again stale` runs it again.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from zoo_models import COLLECTIONS, Entry, entries
from zoo_models.folder import check_folder
from zoo_models.vision import declare_operators
from zoo_table import (
    RESULTS,
    Record,
    captured,
    complete,
    is_stale,
    load,
    rules_digest,
    save,
    summary,
    write_folders,
    write_table,
)

# Seconds of CPU time, so that a busy machine changes no result; a process that sleeps is ended by the clock.
LIMITS = {"build": 120, "capture": 150, "infer": 150, "verify": 240, "folder": 200, "bound": 90}
ASLEEP = 6  # times the limit, by the clock
TOLERANCE = 1e-9
SMALL = 300_000  # parameters of a network whose exchanges outside the group are tried


class Late(Exception):
    """A stage took longer than its limit."""


def run(entry: Entry, pipe: Connection, memory: int) -> None:
    """The work of one process: a record is sent through the pipe, and the stage before it starts."""
    resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    signal.signal(signal.SIGPROF, _late)
    record: Record = {"collection": entry.collection, "model": entry.name, "seconds": {}}
    try:
        for stage in _stages(entry, record):
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


def _stages(entry: Entry, record: Record) -> Iterator[str]:
    """Build, capture, infer, verify, save and load; yields each stage's name before it starts and fills the record."""
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
    if record["params"] <= SMALL and not trace.random and check.kept:
        record["bound"] = {"reason": "took too long"}
        yield clock.start("bound")
        record["bound"] = _bound(net, args, kwargs, spec)
    clock.stop()


def _bound(net: Any, args: Any, kwargs: Any, spec: Any) -> Record:
    """What the brute-force bound finds: exchanges of two units that keep the function and are not in the group."""
    from oracles.bound import above

    from permgraph.frontend.experts import experts_by_index

    with experts_by_index(net):  # the other way of running them knows no float64
        beyond = above(net, args, spec, pairs=1, kwargs=kwargs)
    axes = [sorted(f"{tensor}[{axis}]" for tensor, axis, _ in move) for move in beyond]
    return {"beyond": len(beyond), "axes": axes[:3]} if beyond else {"beyond": 0}


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


@dataclass
class _Job:
    """A process at work: what it runs, the stage it is in, and since when."""

    entry: Entry
    process: ForkProcess
    stage: str
    since: float


def guarded(todo: list[Entry], workers: int, memory: int) -> Iterator[Record]:
    """Run every entry in a process of its own; what is killed becomes a record too."""
    context = multiprocessing.get_context("fork")
    waiting = list(todo)
    running: dict[Connection, _Job] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            entry = waiting.pop(0)
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=run, args=(entry, theirs, memory), daemon=True)
            process.start()
            theirs.close()
            running[mine] = _Job(entry, process, "build", time.monotonic())
        multiprocessing.connection.wait(list(running), timeout=1)
        for pipe, job in list(running.items()):
            message = _news(pipe, job)
            if isinstance(message, str):
                job.stage, job.since = message, time.monotonic()
            elif message is not None:
                del running[pipe]
                _end(job.process)
                yield message


def _news(pipe: Connection, job: _Job) -> str | Record | None:
    """The stage that begins, the record at the end, or nothing yet."""
    try:
        if pipe.poll():
            message: str | Record = pipe.recv()
            return message
    except EOFError:
        return _died(job, "the process died")
    late = time.monotonic() - job.since > ASLEEP * LIMITS[job.stage]  # deaf to the alarm
    return _died(job, "took too long") if late else None


def _died(job: _Job, why: str) -> Record:
    status = {"build": "not built", "capture": "not captured"}.get(job.stage, f"failed in {job.stage}")
    return {"collection": job.entry.collection, "model": job.entry.name, "status": status, "reason": why}


def _end(process: ForkProcess) -> None:
    process.join(timeout=2)
    if process.is_alive():
        process.kill()
        process.join()


def versions(collection: str) -> dict[str, str]:
    from importlib.metadata import version

    names = ["torch", *({"torchvision", "timm", "transformers"} & {collection})]
    return {name: version(name) for name in names}


def line(record: Record) -> str:
    """One result on one line, for the terminal."""
    numbers = "".join(
        f" {key}={record[key]:{form}}"
        for key, form in (("error", ".1e"), ("log10_order", ".1f"), ("frozen", ""))
        if key in record
    )
    seconds = sum(record.get("seconds", {}).values())
    folder = record.get("folder", {})
    wrong = (
        f" folder {folder['status']}: {folder.get('reason', '')}"
        if folder.get("status", "ok") != "ok"
        else ""
    )
    rest = f" unknown={record['unknown']}" if record.get("unknown") else ""
    rest += f" bound={record['bound']}" if record.get("bound", {"beyond": 0}) != {"beyond": 0} else ""
    return f"{record['model']:40s} {record['status']:14s}{numbers}{rest} {seconds:.0f}s {record.get('reason', '')}{wrong}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--collection", choices=COLLECTIONS, action="append")
    parser.add_argument("--only", metavar="GLOB", action="append", help="names to run")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", type=int, default=12, metavar="GIB", help="address space of one worker")
    parser.add_argument("--resume", action="store_true", help="skip what has a result")
    parser.add_argument(
        "--again",
        metavar="STATUS",
        action="append",
        help="run again what ended so (ok, unsound, incomplete, stale, failed*, not*, folder failed)",
    )
    parser.add_argument("--summary", action="store_true", help="counts from the stored results")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--table", action="store_true", help="write docs/zoo.md and docs/folders.md from the stored results"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    records = load(options.results)
    if options.summary or options.table:
        if options.table:
            write_table(records)
            write_folders(records)
        counts = summary(records)
        print(json.dumps(counts) if options.json else "\n".join(f"{k:20s} {v}" for k, v in counts.items()))
        return 0
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for collection in options.collection or COLLECTIONS:
        try:
            todo = [e for e in entries(collection) if _wanted(e, options, records)]
        except ImportError as error:
            print(f"{collection}: {error}. Install it as the head of this file says.", file=sys.stderr)
            continue
        made_with = versions(collection) | {"rules": rules_digest(), "date": time.strftime("%Y-%m-%d")}
        _warm(collection)
        for i, record in enumerate(guarded(todo, options.workers, options.memory), 1):
            records = load(options.results)  # another run may have added to it
            records[(record["collection"], record["model"])] = record | {"made": made_with}
            save(records, options.results)
            print(f"{i}/{len(todo)} {line(record)}", flush=True)
    return 0


def _wanted(entry: Entry, options: argparse.Namespace, records: dict[tuple[str, str], Record]) -> bool:
    known = records.get((entry.collection, entry.name))
    if options.only and not any(fnmatch.fnmatch(entry.name, glob) for glob in options.only):
        return False
    if options.again:
        if known is None:
            return False
        ended = [known["status"], *(["incomplete"] if captured(known) and not complete(known) else [])]
        ended += ["stale"] if is_stale(known) else []
        ended += [f"folder {known['folder']['status']}"] if "folder" in known else []
        return any(fnmatch.fnmatch(status, glob) for status in ended for glob in options.again)
    return not (options.resume and known)


def _warm(collection: str) -> None:
    """Import once what every forked worker needs."""
    import torch

    from permgraph.frontend.capture import capture
    from permgraph.symmetry.infer import infer
    from permgraph.verification.function_check import verify

    torch.set_num_threads(1)
    net, example = torch.nn.Linear(2, 2), (torch.zeros(1, 2),)
    verify(net, example, infer(capture(net, example)))
    if collection == "transformers":
        declare_operators()  # some of its networks import torchvision
        import transformers.modeling_utils  # noqa: F401


if __name__ == "__main__":
    raise SystemExit(main())
