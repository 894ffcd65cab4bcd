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
other code is stale, counted as such, and `--again stale` runs it again: where the same groups are inferred, its checks hold.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

from zoo_models import COLLECTIONS, Entry, entries
from zoo_models.vision import declare_operators
from zoo_pool import guarded
from zoo_row import LIMITS, may_be_bounded
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
    parser.add_argument(
        "--patience", type=float, default=1.0, metavar="TIMES", help="the CPU seconds that a stage may take"
    )
    parser.add_argument("--resume", action="store_true", help="skip what has a result")
    parser.add_argument(
        "--again",
        metavar="STATUS",
        action="append",
        help="run again what ended so (ok, unsound, incomplete, stale, unbounded, failed*, not*, folder failed)",
    )
    parser.add_argument(
        "--no-bound",
        action="store_true",
        help="leave out exchanges outside the group, the slowest stage; `--again unbounded` tries them later",
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
    for stage in LIMITS:
        LIMITS[stage] *= options.patience  # workers are forked, and so have it too
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
        known = {key: row for key, row in records.items() if _same_versions(row.get("made", {}), made_with)}
        rows = guarded(todo, options.workers, options.memory, not options.no_bound, known)
        for i, record in enumerate(rows, 1):
            records = load(options.results)  # another run may have added to it
            records[(record["collection"], record["model"])] = record | {"made": made_with}
            save(records, options.results)
            print(f"{i}/{len(todo)} {line(record)}", flush=True)
    return 0


def _same_versions(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two rows were made with the same libraries."""
    own = ("rules", "date")
    return {k: v for k, v in one.items() if k not in own} == {k: v for k, v in other.items() if k not in own}


def _wanted(entry: Entry, options: argparse.Namespace, records: dict[tuple[str, str], Record]) -> bool:
    known = records.get((entry.collection, entry.name))
    if options.only and not any(fnmatch.fnmatch(entry.name, glob) for glob in options.only):
        return False
    if options.again:
        if known is None:
            return False
        ended = [known["status"], *(["incomplete"] if captured(known) and not complete(known) else [])]
        ended += ["stale"] if is_stale(known) else []
        ended += ["unbounded"] if "bound" not in known and may_be_bounded(known) else []
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
