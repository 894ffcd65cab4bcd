"""What permgraph infers on the reference networks; each is traced once per test run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from permgraph.frontend.capture import capture
from permgraph.ir.spec import PermSpec
from permgraph.ir.trace import Trace
from permgraph.symmetry.infer import infer
from tests.linter.networks import NETWORKS

KNOWN = Path(__file__).resolve().parents[2] / "specs" / "known"


@cache
def trace_of(network: str) -> Trace:
    module, inputs = NETWORKS[network]()
    meta = any(p.is_meta for p in module.parameters())
    return capture(module, tuple(x.to("meta") if meta else x for x in inputs), name=network)


@cache
def spec_of(network: str, free_output: bool = False) -> PermSpec:
    return infer(trace_of(network), free_output)
