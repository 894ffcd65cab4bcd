"""Merged encoders of a row: B's units brought to A's, and the average for every λ. What is there already is left alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModel
from transformers.utils import logging

from permgraph.calibration import Calibration
from permgraph.errors import FileError
from permgraph.inputs.clips import BadAudio, header
from permgraph.inputs.sources import gather
from permgraph.ir.permutations import Permutations
from permgraph.ir.plan import Plan
from permgraph.pipeline import Aligned, align, merge_all, plan_for
from permgraph.weights.encoder import Encoder, open_encoder
from permgraph.weights.ratios import matched_weights
from reproduction.rows import Experiment, Row

DONE = "done.json"  # written last: λ → folder
SOURCES = ("preprocessor_config.json", "recipe.json")


@dataclass(frozen=True)
class Maker:
    """Makes rows below a folder. `data`: what the experiment's audio is relative to."""

    experiment: Experiment
    data: Path
    out: Path
    seed: int = 0

    def make(self, row: Row, a: Path, b: Path) -> dict[float, Path]:
        """λ → folder of the merged encoder. The function check is run on every B that is permuted by an exact plan."""
        folder = self.out / "merged" / f"{_slug(row.name)}-{self._key(row, a, b)}"
        done = folder / DONE
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
            folder.mkdir(parents=True)
            paths = self._merged(row, open_encoder(a), open_encoder(b), folder)
            made = {str(share): path.name for share, path in zip(row.shares, paths, strict=True)}
            done.write_text(json.dumps(made))
        return {float(share): folder / name for share, name in json.loads(done.read_text()).items()}

    def permutations(self, row: Row, a: Path, b: Path) -> Permutations:
        """Those of a row, made where they are not there."""
        first = next(iter(self.make(row, a, b).values()))
        return Permutations.load(first / "permutations.safetensors")

    def _merged(self, row: Row, a: Encoder, b: Encoder, folder: Path) -> Sequence[Path]:
        plan, audio = plan_for(b, row.groups, mode=row.mode), self._calibration(row)
        found = self._aligned(row, a, b, plan, audio, folder)
        pairs = [(share, round(1 - share, 6)) for share in row.shares]
        if not row.matched:
            repair = audio if row.repair else None
            return merge_all(a, b, found, folder / "merged", pairs, repair=repair, force=True)[0]
        return [
            merge_all(
                a,
                b,
                found,
                folder / f"merged-{pair[0]:g}",
                [pair],
                tensor_weights=matched_weights(plan, found.perms, pair),
                force=True,
            )[0][0]
            for pair in pairs
        ]

    def _aligned(
        self, row: Row, a: Encoder, b: Encoder, plan: Plan, audio: Calibration, folder: Path
    ) -> Aligned:
        one, other = (self._untrained(e) if row.untrained else e for e in (a, b))
        found = align(one, other, plan, audio, matcher=row.matcher, seed=self.seed)
        for _ in range(row.rounds - 1):  # B to the encoder that is merged so far
            (between,), _ = merge_all(a, b, found, folder / "between", [(0.5, 0.5)], force=True)
            again = align(open_encoder(between), b, plan, audio, matcher=row.matcher, seed=self.seed)
            found = _for_these(again, found.perms)
        if row.untrained:
            found = _for_these(found, align(a, b, plan, None, matcher="identity", verify=False).perms)
        return found

    def _calibration(self, row: Row) -> Calibration:
        audio = [str(self.data / file) for kind in row.calibrate for file in self.experiment.calibrate[kind]]
        clips = round(row.seconds / row.clip) or None
        return Calibration(
            tuple(audio), seconds=row.clip, clips=clips, max_bad=0.1, where=dict(self.experiment.where)
        )

    def _untrained(self, encoder: Encoder) -> Encoder:
        """The encoder before training: from the seed of its recipe, or seed 0 where it has none."""
        target = self.out / "untrained" / f"{encoder.name}-{_digest(encoder.path)[:8]}"
        if not target.exists():
            recipe = encoder.path / "recipe.json"
            settings = json.loads(recipe.read_text())["settings"] if recipe.is_file() else {"seed": 0}
            first = settings.get("init", -1)
            torch.manual_seed(first if first >= 0 else settings["seed"])
            logging.disable_progress_bar()
            model = AutoModel.from_config(encoder.source.module.config)
            model.save_pretrained(target)
            for name in SOURCES:
                if (encoder.path / name).is_file():
                    shutil.copy(encoder.path / name, target)
        return open_encoder(target)

    def _key(self, row: Row, a: Path, b: Path) -> str:
        """Of all that a merged encoder depends on."""
        where = tuple(sorted(self.experiment.where.items()))
        files = tuple(
            str(self.data / file) for kind in row.calibrate for file in self.experiment.calibrate[kind]
        )
        what = [asdict(row), _heard(files, where), self.seed, _digest(a), _digest(b)]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


@cache
def _heard(files: tuple[str, ...], where: tuple[tuple[str, str], ...]) -> str:
    """A digest of what calibrates: its files by size, beginning and end, in their order."""
    total = hashlib.sha256()
    for source in gather(files, dict(where))[0]:
        try:
            total.update(header(source).digest.encode())
        except BadAudio as problem:  # is left out, and said so, where it is read
            total.update(f"{source.name}: {problem}".encode())
    return total.hexdigest()


def _for_these(found: Aligned, of: Permutations) -> Aligned:
    """The same permutations for the weights that `of` belongs to: they were matched on others, which are not merged."""
    return replace(found, perms=replace(found.perms, origin=of.origin))


def _digest(encoder: Path) -> str:
    """Of the files of weights, and of what says how they are run. Raises FileError where there are no weights."""
    files = (
        [encoder]
        if encoder.is_file()
        else sorted(encoder.glob("*.safetensors")) + sorted(encoder.glob("*.bin"))
    )
    if not files:
        raise FileError(f"{encoder}: holds no weights.")
    total = hashlib.sha256()
    beside = [encoder / name for name in ("config.json", *SOURCES)]
    for file in [*files, *(file for file in beside if file.is_file())]:
        with open(file, "rb") as stream:
            while block := stream.read(2**24):
                total.update(block)
    return total.hexdigest()


def _slug(name: str) -> str:
    return "".join(x if x.isalnum() or x in "-+_." else "-" for x in name)
