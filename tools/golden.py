"""Golden specs: what inference finds on every known network, as data that a change must not alter unseen.

    python tools/golden.py              write specs/golden/*.json
    python tools/golden.py --check      compare, write nothing, exit 1 where something differs
    python tools/golden.py hubert bert  only these

Networks are the aliases of specs/architectures and the small models of tools/networks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from permgraph.frontend.architectures import aliases
from permgraph.frontend.capture import capture
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.reporting.tables import rows
from permgraph.symmetry.infer import infer

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "specs" / "golden"


def networks() -> list[str]:
    """Aliases by their name, small models as "small.NAME"."""
    from networks import MODELS

    return [*aliases(), *(f"small.{name}" for name in MODELS)]


def trace_of(name: str) -> Trace:
    if name.startswith("small."):
        from networks.traced import trace

        return trace(name.removeprefix("small."))
    from permgraph.frontend.sources import load_source

    source = load_source(name)
    return capture(source.module, source.args, source.kwargs, name)


def golden(trace: Trace) -> dict[str, Any]:
    """The facts that are held: groups folded as in the table, with the output pinned and free."""
    return {"pinned_output": _facts(infer(trace)), "free_output": _facts(infer(trace, free_output=True))}


def _facts(spec: PermSpec) -> dict[str, Any]:
    held: Counter[str] = Counter()
    for pin in spec.pinned:
        held[pin.reason] += pin.count
    return {
        "groups": [list(row.cells()) for row in rows(spec)],
        "elementary_groups": sum(g.copies for g in spec.groups),
        "places": len(spec.places),
        "log10_order": round(spec.log10_order, 3),
        "pinned": dict(sorted(held.items())),
        "unused": [name for name in spec.unused if not name.endswith("num_batches_tracked")],
        "unknown_ops": sorted({u.op for u in spec.unknown_ops}),
        "frozen": spec.frozen,
    }


def text_of(facts: dict[str, Any]) -> str:
    """JSON with a group a line, so that a difference reads like one."""
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    for part in facts.values():
        for row in part["groups"]:
            text = text.replace(
                json.dumps(row, indent=1, ensure_ascii=False).replace("\n", "\n   "),
                json.dumps(row, ensure_ascii=False),
            )
    return text + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="networks (default: all)")
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for name in options.names or networks():
        path, found = GOLDEN / f"{name}.json", text_of(golden(trace_of(name)))
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        if found == known:
            continue
        wrong += 1
        print(f"{name}: {'differs' if known else 'new'}", flush=True)
        if not options.check:
            path.write_text(found, encoding="utf-8")
    return int(options.check and wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
