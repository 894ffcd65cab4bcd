"""All encoders of one or several recipes, one after the other; what is there already is left alone.

    python tools/encoders.py specs/encoders/speech.toml specs/encoders/music.toml --data ../shared/data -o DIR

Killed, it goes on from the last checkpoint when the same command is given again. The recipes' tasks judge the encoders
(tools/gate.py): before anything is trained, audio that one of them holds as valid or test is refused.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from pretrain import told, train_and_save
from pretraining.command import run_tool
from pretraining.leaks import refuse_leaks
from pretraining.network import RECIPE
from pretraining.recipe import Recipe, Run, load_recipe

from permgraph.errors import FileError, UsageError, nearest


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    recipes = [load_recipe(path, given.data, given.out) for path in given.recipes]
    runs = chosen([run for recipe in recipes for run in recipe.runs], given.only)
    for recipe in recipes:
        _refuse_leaks(recipe, given.data)
    torch.set_num_threads(1)  # another number, other rounding
    given.out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        folder = given.out / run.name
        if folder.exists():
            _refuse_other(run, folder)
            print(f"{run.name}: is there", flush=True)
        else:
            print(f"{run.name}: {run.settings.steps} steps", flush=True)
            train_and_save(run.settings, folder, half=True, save_every=given.save_every)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python tools/encoders.py", description=__doc__.splitlines()[0])
    made.add_argument("recipes", nargs="+", type=Path, help="TOML files of specs/encoders")
    made.add_argument("--data", type=Path, required=True, help="what the recipes' manifests are relative to")
    made.add_argument("--out", "-o", type=Path, required=True, help="the folder of the encoders' folders")
    made.add_argument("--only", nargs="*", default=[], help="names of runs, in the order to train them in")
    made.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints")
    return made


def chosen(runs: list[Run], names: list[str]) -> list[Run]:
    """All runs, or those named, in that order. Raises UsageError."""
    by_name = {run.name: run for run in runs}
    for name in names:
        if name not in by_name:
            raise UsageError(f"--only {name}.{nearest(name, by_name)} There are: {', '.join(by_name)}.")
    return [by_name[name] for name in names] or runs


def _refuse_other(run: Run, folder: Path) -> None:
    """Refuse an encoder of other settings: it is not what the recipe says. Raises FileError."""
    try:
        found = json.loads((folder / RECIPE).read_text())["settings"]
    except (OSError, ValueError, KeyError) as error:
        raise FileError(
            f"{folder}: not an encoder that was trained here ({error!r}). Give another -o."
        ) from error
    wanted = told(run.settings)
    if found != wanted:
        other = [key for key in sorted(found | wanted) if found.get(key) != wanted.get(key)]
        raise FileError(
            f"{folder}: was trained with other settings ({', '.join(other)}). Remove it, or give another -o."
        )


def _refuse_leaks(recipe: Recipe, data: Path) -> None:
    for audio in dict.fromkeys(run.settings.audio for run in recipe.runs):
        count = refuse_leaks(audio, recipe.tasks, data)
        print(f"{recipe.name}: {count} files, none of them valid or test of a task", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else matrix products on a GPU vary
    run_tool("encoders", main)
