"""Check that the folder of every model type of transformers is read, permuted and loaded again.

    python tools/folders.py --resume              run what has no result yet; converted types first
    python tools/folders.py --only 'vit*'         run some again
    python tools/folders.py --table               write docs/folders.md from the results

Each small random network of the zoo is saved by `save_pretrained` in shards, its folder permuted by a random element
of the whole group, and loaded by `from_pretrained`: all tensors must be those of `permgraph.apply` on the network's
own state, bit for bit. Results are one JSON line per network in docs/folders.jsonl.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo import _late, _reason, guarded, versions
from zoo import _warm as warm
from zoo_models import Entry, entries
from zoo_table import ROOT, Record, Records, load, save

RESULTS = ROOT / "docs" / "folders.jsonl"
TABLE = ROOT / "docs" / "folders.md"
SECONDS = 200  # per stage


def run(entry: Entry, pipe: Connection, memory: int) -> None:
    """The work of one process: a record is sent through the pipe, and the stage before it starts."""
    resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    signal.signal(signal.SIGALRM, _late)
    record: Record = {"collection": entry.collection, "model": entry.name}
    try:
        _check(entry, record, pipe)
    except Exception as error:  # the reason is the result
        record["reason"] = _reason(error)
    record.setdefault("status", "failed")
    signal.alarm(0)
    pipe.send(record)


def _check(entry: Entry, record: Record, pipe: Connection) -> None:
    from zoo_models.folder import NotReloaded, survives

    from permgraph.frontend.capture import capture
    from permgraph.symmetry.infer import infer

    record["status"] = "not built"
    _stage(pipe, "build")
    net, args, kwargs = entry.build()
    net = net.eval().float()
    record["kind"] = type(net).__name__
    record["status"] = "not captured"
    _stage(pipe, "capture")
    spec = infer(capture(net, args, kwargs))
    del record["status"]
    _stage(pipe, "verify")
    with TemporaryDirectory() as folder:
        try:
            record |= survives(net, spec, Path(folder))
        except NotReloaded as error:
            record |= {"status": "not reloaded", "reason": str(error)}
        else:
            record["status"] = "ok"


def _stage(pipe: Connection, name: str) -> None:
    signal.alarm(SECONDS)
    pipe.send(name)


def wanted(options: argparse.Namespace, records: Records) -> list[Entry]:
    """What to run, types with a conversion of their own first, then those without a head."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping as conversion

    todo = [
        e
        for e in entries("transformers")
        if (not options.only or any(fnmatch.fnmatch(e.name, glob) for glob in options.only))
        and not (options.resume and (e.collection, e.name) in records)
    ]
    return sorted(todo, key=lambda e: (conversion(e.name.rpartition("/")[2]) is None, "/" in e.name, e.name))


def write_table(records: Records, path: Path = TABLE) -> None:
    """docs/folders.md: the counts, one row per network that was checked, and why the others were not."""
    rows = [records[key] for key in sorted(records)]
    counts = Counter(r["status"] for r in rows)
    made = sorted({f"{k} {v}" for r in rows for k, v in r.get("made", {}).items() if k != "date"})
    head = "| model | class | groups | stored tensors | shards | renamed | fused | result |\n|---|---|---:|---:|---:|---:|---:|---|"
    keys = ("model", "kind", "groups", "stored", "shards", "renamed", "fused", "status")
    checked = [r for r in rows if r["status"] in ("ok", "failed")]
    body = ["| " + " | ".join(str(r.get(k, "")) for k in keys) + " |" for r in checked]
    left = [r for r in rows if r["status"] != "ok"]
    why = [f"| {r['model']} | {r['status']} | {r.get('reason', '').replace('|', '/')[:200]} |" for r in left]
    path.write_text(
        "\n".join(
            [
                "# Model folders of transformers\n\nWritten by `python tools/folders.py --table` from "
                "`docs/folders.jsonl`; do not edit.\n",
                f"With {', '.join(made)}. {', '.join(f'{n} {status}' for status, n in counts.most_common())}.\n",
                "*ok*: the folder that `save_pretrained` wrote was permuted by a random element of the whole group, and "
                "`from_pretrained` gave the tensors of `permgraph.apply` on the network's own state, bit for bit, under "
                "the keys they had. *Renamed* and *fused* count the stored tensors that have another name in the model, "
                "and the model's tensors made of several (or the reverse). *Not reloaded*: transformers itself does not "
                "load what it saved.\n",
                head,
                *body,
                "\n| not checked, or failed | where | reason |\n|---|---|---|",
                *why,
                "",
            ]
        )
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="GLOB", action="append", help="names to run")
    parser.add_argument("--resume", action="store_true", help="skip what has a result")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", type=int, default=12, metavar="GIB", help="address space of one worker")
    parser.add_argument("--table", action="store_true", help="write docs/folders.md from the stored results")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    if options.table:
        write_table(load(options.results))
        return 0
    warnings.simplefilter("ignore")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    warm("transformers")
    todo = wanted(options, load(options.results))
    made = versions("transformers") | {"date": time.strftime("%Y-%m-%d")}
    for i, record in enumerate(guarded(todo, options.workers, options.memory, run), 1):
        records = load(options.results)
        records[(record["collection"], record["model"])] = record | {"made": made}
        save(records, options.results)
        print(
            f"{i}/{len(todo)} {record['model']:40s} {record['status']:14s} {record.get('reason', '')}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
