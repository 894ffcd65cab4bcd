"""Trace, infer, plan, verify: from networks of 25 M to 70 B parameters, and how they grow with layers and with width."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import large_models
from large_models import Source
from oracles.memory import forget_peak, peak

import permgraph as pg
from bench.measure import ROOT, Row, in_turn, own_peak
from permgraph.verification.state import BUDGET, WIDE

STAGES = ("trace", "infer", "plan", "load")  # the last: of the plan's file
MODELS = ("resnet50", "hubert_base", "hubert_xlarge", "whisper_large", "llama_7b")
HUGE = ("llama_70b",)
TARGETS = {
    ("hubert_base", "trace"): 1.0,
    ("llama_70b", "infer"): 10.0,
    ("llama_70b", "load"): 0.3,
}  # seconds, after imports
VERIFIED = ("resnet50", "hubert_base", "hubert_xlarge")
BYTES = 6.0  # of memory that verify takes for each parameter beside the weights, at most; of networks too large to be kept
LAYERS, WIDTHS = (6, 12, 24, 48), (192, 384, 768, 1536)


def stages(source: Callable[[], Source], rounds: int) -> dict[str, Any]:
    """Seconds of CPU of each stage, all on the meta device; the first round, which imports, is not counted."""
    module, args = source()
    held: dict[str, Any] = {}
    jobs = {
        "trace": lambda: held.update(trace=pg.trace(module, args)),
        "infer": lambda: held.update(spec=pg.infer(held["trace"])),
        "plan": lambda: held.update(plan=pg.plan(held["spec"])),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "plan.json")
        jobs["save"] = lambda: held["plan"].save(file)
        jobs["load"] = lambda: held.update(plan=pg.Plan.load(file))
        costs, _ = in_turn(jobs, rounds)
    size = sum(p.numel() for p in module.parameters())
    return {"size": size, "peak": own_peak(), **{name: [c.cpu for c in costs[name]] for name in STAGES}}


def measured(models: Sequence[str], rounds: int, peers: Mapping[str, Path]) -> Iterator[Row]:
    """A row for each network and stage, in seconds; each network has a process of its own."""
    for model in models:
        found = in_process("stages", {"model": model, "rounds": 1 if model in HUGE else rounds})
        for stage in STAGES:
            yield _seconds(
                f"{stage}, {model}, {found['size'] / 1e6:,.0f} M",
                found[stage],
                found["peak"],
                TARGETS.get((model, stage), 0.0),
            )
    for model in (m for m in VERIFIED if m in models):
        yield from _of_verify(model, in_process("verified", {"model": model}))
    for what, values in (("layers", LAYERS), ("width", WIDTHS)):
        points = [in_process("growth", {what: value, "rounds": rounds}) for value in values]
        for stage in STAGES:
            times = [min(point[stage]) for point in points]
            power = _slope([math.log(v) for v in values], [math.log(t) for t in times])
            yield Row(
                f"{stage}: exponent of growth with {what}",
                f"HuBERT, {values[0]} to {values[-1]}",
                power,
                min(times),
                max(times),
                0.0,
                times[-1],
                points[-1]["peak"],
            )
    if "torch_pruning" in peers:
        found = in_process("beside_pruning", {"rounds": rounds}, peers["torch_pruning"])
        ratios = [ours / theirs for ours, theirs in zip(found["ours"], found["theirs"], strict=True)]
        yield Row(
            "trace and infer, ResNet-50",
            "Torch-Pruning's graph and groups",
            median(ratios),
            min(ratios),
            max(ratios),
            0.0,
            median(found["ours"]),
            found["peak"],
            10.0,
        )


def _of_verify(model: str, found: Mapping[str, Any]) -> Iterator[Row]:
    yield _seconds(f"verify, {model}, {found['size'] / 1e6:,.0f} M", [found["cpu"]], found["peak"], 0.0)
    share = found["beyond"] / found["size"]
    job, beside = f"memory of verify beside the weights, {model}", "bytes a parameter"
    target = BYTES if found["size"] * WIDE > BUDGET else 0.0
    yield Row(job, beside, share, share, share, 0.0, found["cpu"], found["peak"], target)


def verified(model: str) -> dict[str, Any]:
    """The function check of all groups, of random weights on the CPU: seconds, and memory from when the weights are there."""
    import torch

    source: Callable[[], Source] = getattr(large_models, model)
    spec = pg.infer(pg.trace(*source()))
    module, given = source()
    module, args = module.to_empty(device="cpu"), tuple(torch.zeros(x.shape, dtype=x.dtype) for x in given)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.02)
    for part in module.modules():
        getattr(part, "reset_parameters", lambda: None)()
    forget_peak()
    before, start = peak(), time.process_time()
    check = pg.verify(module, args, spec)
    if not check.kept:
        raise RuntimeError(f"{model}: {check}")
    spent = time.process_time() - start
    size = sum(p.numel() for p in module.parameters())
    return {"size": size, "cpu": spent, "peak": own_peak(), "beyond": peak() - before}


def growth(layers: int = 12, width: int = 768, rounds: int = 1) -> dict[str, Any]:
    def source() -> Source:
        import torch
        from transformers import HubertConfig, HubertModel

        heads = {"num_attention_heads": 12, "num_conv_pos_embedding_groups": 16}
        with torch.device("meta"):
            config = HubertConfig(
                num_hidden_layers=layers, hidden_size=width, intermediate_size=4 * width, **heads
            )
            return HubertModel(config).eval(), (torch.zeros(1, 8000),)

    return stages(source, rounds)


def beside_pruning(rounds: int = 3) -> dict[str, Any]:
    """ResNet-50: both read the graph and find its groups of channels."""
    import torch
    import torch_pruning

    module, args = large_models.resnet50()
    module, args = module.to_empty(device="cpu"), tuple(torch.zeros(x.shape) for x in args)

    def theirs() -> list[Any]:
        graph = torch_pruning.DependencyGraph().build_dependency(module, args[0])
        return list(graph.get_all_groups(root_module_types=[torch.nn.Conv2d, torch.nn.Linear]))

    jobs = {"ours": lambda: pg.infer(pg.trace(module, args)), "theirs": theirs}
    costs, _ = in_turn(jobs, rounds)
    return {"peak": own_peak(), **{name: [c.cpu for c in costs[name]] for name in jobs}}


def in_process(function: str, options: Mapping[str, Any], *folders: Path) -> dict[str, Any]:
    """A function of this file in a process of its own, on one thread."""
    import os
    import subprocess

    code = f"import sys, json; sys.path[:0] = {[str(f) for f in (ROOT / 'tools', *folders)]!r}\nfrom bench import graphs\nprint(json.dumps(graphs.called({function!r}, {dict(options)!r})))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def called(function: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if function == "stages":
        return stages(getattr(large_models, options["model"]), options["rounds"])
    known: dict[str, Callable[..., dict[str, Any]]] = {
        "growth": growth,
        "verified": verified,
        "beside_pruning": beside_pruning,
    }
    return known[function](**options)


def _seconds(job: str, times: Sequence[float], peak: float, target: float) -> Row:
    return Row(job, "seconds of CPU", median(times), min(times), max(times), 0.0, median(times), peak, target)


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the straight line nearest to the points."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - mean_x) ** 2 for a in x)
