"""Start-up: what each verb costs on files of a small model beside the interpreter that does nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.measure import Row, commands_in_turn
from permgraph.demo import demo_models

ROUNDS = 5
TARGETS = {"--help": 0.15, "plan": 0.4, "draw": 0.4, "why": 0.4, "report": 0.4, "doctor": 1.0}


def measured(folder: Path, rounds: int = ROUNDS) -> Iterator[Row]:
    """Rows in seconds: a ratio to an interpreter says little. The job "python" is the interpreter itself."""
    verbs = _files(folder, demo_models()[0])
    verb = [sys.executable, "-m", "permgraph"]
    commands = {"python": [sys.executable, "-c", "pass"]}
    commands |= {name: [*verb, *words] for name, words in verbs.items()}
    costs = commands_in_turn(commands, rounds)
    base = median(cost.cpu for cost in costs["python"])
    for name, spent in costs.items():
        cpu = [cost.cpu for cost in spent]
        target = TARGETS.get(name, 0.0)
        yield Row(
            name,
            "seconds of CPU",
            median(cpu),
            min(cpu),
            max(cpu),
            median(cost.wall for cost in spent),
            median(cpu) - base,
            max(cost.peak for cost in spent),
            target,
        )


def _files(folder: Path, model: Path) -> dict[str, list[str]]:
    import permgraph as pg
    from permgraph.pipeline import plan_for
    from permgraph.weights.encoder import open_encoder

    folder.mkdir(parents=True, exist_ok=True)
    encoder = open_encoder(model)
    trace, plan, perms = (folder / n for n in ("trace.json", "plan.json", "perms.safetensors"))
    encoder.trace.save(trace)
    made = plan_for(encoder, "cnn,heads,ffn2")
    made.save(plan)
    pg.match(made, None, "identity").save(perms)
    axis = "encoder.layers.0.attention.q_proj.weight[0]"
    return {
        "--help": ["--help"],
        "plan": ["plan", str(trace), "-o", str(folder / "again.json")],
        "tree": ["tree", str(plan)],
        "why": ["why", str(trace), axis],
        "draw": ["draw", str(trace), "--plan", str(plan), "-o", str(folder / "net.svg")],
        "view": ["view", str(trace), "--plan", str(plan), "-o", str(folder / "net.html")],
        "report": ["report", str(perms)],
        "doctor": ["doctor"],
    }
