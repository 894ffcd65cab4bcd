"""The command line of the pre-training tool.

    python tools/pretrain.py --synthetic speech=30 --seed 1 -o encoder_a
    python tools/pretrain.py --audio "data/manifest.csv@split=train" --seed 3 -o speech

Killed, it goes on from its last checkpoint (OUT.checkpoint) when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import transformers
from pretraining.command import run_tool
from pretraining.network import save_encoder
from pretraining.train import Progress, Settings, train

from permgraph.errors import FileError

HELP = {
    "synthetic": "audio made on the spot: kind=minutes, for example speech=20 music=5",
    "audio": "folders, globs or manifests; MANIFEST@column=value keeps some rows",
    "targets": "mfcc, logmel, texture, harmonics, cqt, or FOLDER:LAYER of an earlier encoder: their clusters are predicted",
    "vectors": "the same names: predicted as they are",
    "copies": "of each clip, besides it: at other speeds, with other spectra, over other clips",
    "init": "seed of the first weights, where they are to be those of another run",
    "ffn": "units inside a feed-forward block, instead of three times --hidden",
    "convs": "channels of each of seven convolutions, instead of five of --channels",
}


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    out: Path = given.out
    if out.exists() and not given.force:
        raise FileError(f"{out}: is there already. Add --force to replace it, or choose another -o.")
    torch.set_num_threads(given.threads)
    values: dict[str, Any] = {f.name: getattr(given, f.name) for f in fields(Settings)}
    values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
    settings = Settings(**values)
    train_and_save(settings, out, given.half, given.save_every, given.force)
    return 0


def train_and_save(
    settings: Settings, out: Path, half: bool, save_every: float = 60.0, force: bool = False
) -> None:
    """From OUT.checkpoint on, if it is there; the folder holds the recipe and the course of the run."""
    checkpoint = out.with_name(out.name + ".checkpoint")
    start = time.monotonic()

    def report(progress: Progress) -> None:
        error = f"  error {progress.error:.3f}" if settings.vectors else ""
        print(
            f"step {progress.step}/{settings.steps}  loss {progress.loss:.3f}  "
            f"accuracy {progress.accuracy:.3f} (chance {progress.chance:.3f}){error}  "
            f"{time.monotonic() - start:.0f} s",
            flush=True,
        )

    model, course = train(settings, checkpoint, report, save_every)
    recipe = {
        "tool": "python tools/pretrain.py",
        "settings": told(settings),
        "result": asdict(course[-1]) if course else {},
        "course": [asdict(progress) for progress in course],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    save_encoder(model.encoder, out, recipe, half, force)
    checkpoint.unlink(missing_ok=True)


def told(settings: Settings) -> dict[str, Any]:
    """As recipe.json says them: paths without where somebody's data lie."""
    values = asdict(settings) | {k: [_public(t) for t in getattr(settings, k)] for k in ("audio", "targets")}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python tools/pretrain.py", description=__doc__.splitlines()[0])
    made.add_argument("--out", "-o", type=Path, required=True, help="the folder to write")
    made.add_argument("--force", action="store_true", help="replace OUT if it is there")
    made.add_argument("--half", action="store_true", help="store the weights in 16 bits")
    made.add_argument("--threads", type=int, default=1, help="CPU threads; another number, other rounding")
    made.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    for field in fields(Settings):
        option, default = "--" + field.name, field.default
        if isinstance(default, tuple):
            kind = int if field.name == "convs" else str
            made.add_argument(option, nargs="*", type=kind, default=[], help=HELP[field.name])
        elif isinstance(default, bool):
            made.add_argument(option, action="store_true", help=HELP[field.name])
        else:
            made.add_argument(option, type=type(default), default=default, help=HELP.get(field.name, " "))
    return made


def _public(text: str) -> str:
    """The last two parts of a path: a recipe does not say where somebody's data lie."""
    return "/".join(Path(text).parts[-2:])


if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else matrix products on a GPU vary
    run_tool("pretrain", main)
