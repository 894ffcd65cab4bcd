"""Check that files of training libraries are read as what was saved: fairseq, s3prl, torchaudio, Lightning and their wrappers.

    python tools/checkpoints.py            print the table
    python tools/checkpoints.py --table    write docs/checkpoints.md

A small random encoder is written as each library writes it, with an object in the pickle that would leave a mark if it ran.
The file must be read without running it, compute what was saved, be permuted by a random element of the whole group, and
compute the same again; a tensor put back must be noticed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from networks.randomise import noise
from networks.training_files import FILES, File, model
from safetensors.torch import load_file, save_file

TABLE = Path(__file__).parents[1] / "docs" / "checkpoints.md"
SAME = (
    1e-5  # float32, relative to the largest value; a tensor put back changes it by more than ten times that
)
HEAD = """# Files of training libraries

Written by `python tools/checkpoints.py --table`; do not edit.

A small encoder was written as each library writes it, read without its code, permuted by a random element of the whole group
and read again. *Read* is the largest change of the output against the network that was saved, *permuted* the same after the
permutation, *control* with one tensor put back (it must be large); *left* counts keys of the file that are not the encoder's.
Every pickle holds an object that would write a file if it were run: none was.

| library | file | tensors | left | groups | read | permuted | control |
|---|---|---:|---:|---:|---:|---:|---:|
"""


@dataclass(frozen=True)
class Row:
    file: File
    tensors: int
    left: int
    groups: int
    read: float
    permuted: float
    control: float

    @property
    def holds(self) -> bool:
        return self.read < SAME and self.permuted < SAME and self.control > 10 * SAME

    def __str__(self) -> str:
        changes = " | ".join(f"{v:.0e}" for v in (self.read, self.permuted, self.control))
        return f"| {self.file.library} | {self.file.what} | {self.tensors} | {self.left} | {self.groups} | {changes} |"


def judge(file: File, folder: Path) -> Row:
    """Write, read, permute and read again. Raises what permgraph raises, AssertionError when something was run or lost."""
    from permgraph.ir.permutations import random_permutations
    from permgraph.planning.compile import compile_plan
    from permgraph.symmetry.infer import infer
    from permgraph.weights.apply import apply_checkpoint
    from permgraph.weights.encoder import open_encoder

    net, mark = model(file.kind), folder / "was run"
    net.config.save_pretrained(folder / "config")
    file.write(net, folder / "x.pt", mark)
    first = open_encoder(folder / "x.pt", folder / "config", file.state)
    assert set(first.left_out) == set(file.left), first.left_out
    x = noise(1, 900)
    want = _output(net, x)
    plan = compile_plan(infer(first.trace))
    perms = random_permutations(plan, seed=1)
    out = apply_checkpoint(plan, perms, folder / "x.pt", folder / "out.safetensors", state=file.state)
    second = open_encoder(out, folder / "config")
    assert not mark.exists(), "an object of the pickle was run"
    _put_one_back(first, second, folder / "back.safetensors")
    third = open_encoder(folder / "back.safetensors", folder / "config")
    changes = [_change(_output(e.module(), x), want) for e in (first, second, third)]
    return Row(file, len(first.stored), len(file.left), len(plan.selected), *changes)


def _output(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        output: torch.Tensor = net(x)[0]
    return output


def _change(output: torch.Tensor, want: torch.Tensor) -> float:
    return float((output - want).abs().max() / want.abs().max())


def _put_one_back(before: Any, after: Any, path: Path) -> None:
    """The result with its second feed-forward matrix of layer 0 as it was."""
    names = {name: key for key, name in before.stored.items()}
    state = load_file(after.path)
    tensor = next(n for n in names if n.endswith("layers.0.feed_forward.output_dense.weight"))
    key = next(k for k, n in after.stored.items() if n == tensor)
    state[key] = before.checkpoint.read(names[tensor])
    save_file(state, path)


def rows() -> Iterator[Row]:
    for file in FILES:
        with TemporaryDirectory() as folder:
            yield judge(file, Path(folder))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help=f"write docs/{TABLE.name}")
    options = parser.parse_args(argv)
    made = []
    for row in rows():
        made.append(row)
        print(row, "" if row.holds else "WRONG", flush=True)
    if options.table:
        TABLE.write_text(HEAD + "".join(f"{row}\n" for row in made))
    return 0 if all(row.holds for row in made) else 1


if __name__ == "__main__":
    sys.exit(main())
