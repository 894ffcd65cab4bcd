"""Rows of the zoo in processes of their own, so that one which is killed becomes a record too."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from zoo_models import Entry
from zoo_row import LIMITS, run
from zoo_table import Record

ASLEEP = 6  # times a stage's limit by the clock: a process that sleeps uses no CPU time


@dataclass
class _Job:
    """A process at work: what it runs, the stage it is in, and since when."""

    entry: Entry
    process: ForkProcess
    stage: str
    since: float


def guarded(
    todo: list[Entry], workers: int, memory: int, bound: bool, known: Mapping[tuple[str, str], Record]
) -> Iterator[Record]:
    """Run every entry in a process of its own; what is killed becomes a record too.

    known: earlier rows, by collection and name, whose checks may hold.
    """
    context = multiprocessing.get_context("fork")
    waiting = list(todo)
    running: dict[Connection, _Job] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            entry = waiting.pop(0)
            mine, theirs = context.Pipe(duplex=False)
            row = known.get((entry.collection, entry.name))
            process = context.Process(target=run, args=(entry, theirs, memory, bound, row), daemon=True)
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
