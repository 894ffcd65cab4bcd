"""Apply and merge, from files to files, beside reading and writing the same bytes, and beside mergekit's linear merge."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import permgraph as pg
from bench.measure import TOOLS, Row, commands_in_turn, python, row, run

ROUNDS = 5
# Reads every file, writes the first anew: what any merge or copy has to do at least.
FLOOR = """
import os, sys
*sources, out = sys.argv[1:]
block = bytearray(4 << 20)
with open(out, "wb", buffering=0) as target:
    for number, path in enumerate(sources):
        with open(path, "rb", buffering=0) as stream:
            while count := stream.readinto(block):
                if not number:
                    target.write(memoryview(block)[:count])
    os.fsync(target.fileno())
"""


def measured(
    folder: Path, architecture: str, peers: Mapping[str, Path], rounds: int = ROUNDS
) -> Iterator[Row]:
    """Rows of one architecture. Weights are random: what is written is checked by the tests of `permgraph.weights`.

    folder   where two models, and what is made of them, may lie
    peers    "mergekit" → the folder that it was installed in
    """
    # in a process of its own: the peak of a command counts what its parent holds
    run(
        python(
            f"from bench.weights import pair; pair(__import__('pathlib').Path({str(folder)!r}), {architecture!r})"
        ),
        [TOOLS],
    )
    a, b, plan, perms = files_of(folder)
    files = [str(path / "model.safetensors") for path in (a, b)]
    out, copy = folder / "out", folder / "copy.bin"

    def clean() -> None:
        shutil.rmtree(out, ignore_errors=True)
        copy.unlink(missing_ok=True)

    verb = [sys.executable, "-m", "permgraph"]
    using = ["--plan", str(plan), "--perms", str(perms)]
    commands = {
        "read B, write": [sys.executable, "-c", FLOOR, files[1], str(copy)],
        "apply": [*verb, "apply", str(plan), str(perms), str(b), "-o", str(out)],
        "read A and B, write": [sys.executable, "-c", FLOOR, *files, str(copy)],
        "merge": [*verb, "merge", str(a), str(b), *using, "-o", str(out)],
    }
    paths = {}
    if "mergekit" in peers:
        commands["mergekit"] = [sys.executable, "-c", _mergekit(a, b, out)]
        paths["mergekit"] = [peers["mergekit"]]
    costs = commands_in_turn(commands, rounds, clean, paths, threads=2)
    clean()
    size = sum(Path(file).stat().st_size for file in files) / 2e6
    name = f"{architecture}, {size:,.0f} MB each"
    yield row(f"apply, {name}", costs, "apply", "read B, write", target=3)
    yield row(f"merge, {name}", costs, "merge", "read A and B, write", target=3)
    if "mergekit" in commands:
        yield row(f"merge, {name}", costs, "merge", "mergekit", target=1 / 5)


def files_of(folder: Path) -> tuple[Path, Path, Path, Path]:
    """Two models, a plan, and permutations."""
    return folder / "a", folder / "b", folder / "plan.json", folder / "perms.safetensors"


def pair(folder: Path, architecture: str) -> None:
    """Two models with random weights, a plan, and permutations as `match` would leave them; made once."""
    a, b, plan_file, perms_file = files_of(folder)
    if perms_file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    import torch
    from transformers import AutoModel

    from permgraph.frontend.sources import load_source
    from permgraph.ir.fingerprint import Fingerprint
    from permgraph.ir.plan import Origin
    from permgraph.verification.check import Check
    from permgraph.verification.checkpoints import Checked, with_check

    source = load_source(architecture)
    plan = pg.plan(pg.infer(source.trace()), "cnn,heads,ffn2")
    known = []
    for seed, path in enumerate((a, b)):
        torch.manual_seed(seed)
        model = AutoModel.from_config(source.module.config).eval()
        model.save_pretrained(path)
        weights = Fingerprint(plan.spec)
        for key, tensor in model.state_dict().items():
            weights.add(key, tensor)
        known.append(weights.text)
        del model
    perms = replace(pg.random_permutations(plan), origin=Origin(plan.digest, plan.fingerprint, *known))
    plan.save(plan_file)
    with_check(plan, perms, Checked("b", Check(0.0))).save(perms_file)


def _mergekit(a: Path, b: Path, out: Path) -> str:
    """mergekit's linear merge of two folders, as its own command makes it, with the tensors as they are stored."""
    config = (
        f"{{merge_method: linear, dtype: float32, models: [{{model: {a}, parameters: {{weight: 0.9}}}}, "
        f"{{model: {b}, parameters: {{weight: 0.1}}}}]}}"
    )
    return (
        "import transformers, yaml\n"
        "transformers.HubertModel.get_input_embeddings = lambda self: None\n"  # which mergekit asks of every model
        "from mergekit.config import MergeConfiguration\n"
        "from mergekit.merge import run_merge\n"
        "from mergekit.options import MergeOptions\n"
        f"config = MergeConfiguration.model_validate(yaml.safe_load({config!r}))\n"
        f"run_merge(config, {str(out)!r}, MergeOptions(copy_tokenizer=False, trust_remote_code=False, lazy_unpickle=True))\n"
    )
