"""Start-up: what each verb costs on files of a small model beside the interpreter that does nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.measure import TOOLS, Row, commands_in_turn, python, run

ROUNDS = 5
TARGETS = {"--help": 0.15, "plan": 0.4, "draw": 0.4, "why": 0.4, "report": 0.4, "doctor": 1.0}


def measured(folder: Path, rounds: int = ROUNDS) -> Iterator[Row]:
    """Rows in seconds: a ratio to an interpreter says little. The job "python" is the interpreter itself."""
    # in a process of its own: the peak of a command counts what its parent holds
    run(
        python(f"from bench.start_up import prepare; prepare(__import__('pathlib').Path({str(folder)!r}))"),
        [TOOLS],
    )
    verb = [sys.executable, "-m", "permgraph"]
    commands = {"python": [sys.executable, "-c", "pass"]}
    commands |= {name: [*verb, name, *words] for name, words in commands_of(folder).items()}
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


def prepare(folder: Path) -> None:
    """The files that the verbs read."""
    import permgraph as pg
    from permgraph.demo import demo_models
    from permgraph.pipeline import plan_for
    from permgraph.weights.encoder import open_encoder

    folder.mkdir(parents=True, exist_ok=True)
    encoder = open_encoder(demo_models()[0])
    encoder.trace.save(folder / "trace.json")
    made = plan_for(encoder, "cnn,heads,ffn2")
    made.save(folder / "plan.json")
    pg.match(made, None, "identity").save(folder / "perms.safetensors")


def commands_of(folder: Path) -> dict[str, list[str]]:
    """Verb → what to type after it."""
    trace, plan, perms = (str(folder / n) for n in ("trace.json", "plan.json", "perms.safetensors"))
    axis = "encoder.layers.0.attention.q_proj.weight[0]"
    return {
        "--help": [],
        "plan": [trace, "-o", str(folder / "again.json"), "--force"],
        "tree": [trace],
        "why": [trace, axis],
        "draw": [trace, "--plan", plan, "-o", str(folder / "net.svg"), "--force"],
        "view": [trace, "--plan", plan, "-o", str(folder / "net.html"), "--force"],
        "report": [perms],
        "doctor": [],
    }
