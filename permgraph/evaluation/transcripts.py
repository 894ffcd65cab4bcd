"""Texts of clips: their characters, their words, and how many words a hypothesis has wrong.

Transcripts are taken as the data set writes them: case and punctuation count. Only blanks between words become one blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from permgraph.errors import FileError
from permgraph.evaluation.dataset import Dataset, Round, clips
from permgraph.evaluation.extras import extra
from permgraph.evaluation.frames import Frames

MOST = 80  # characters in a note


def word_errors(transcript: str, hypothesis: str) -> int:
    """Words substituted, deleted and inserted, of the alignment with the fewest (jiwer)."""
    found: Any = extra("jiwer").process_words(transcript, hypothesis)
    return int(found.substitutions + found.deletions + found.insertions)


def error_rates(transcripts: Sequence[str], hypotheses: Sequence[str]) -> tuple[float, float]:
    """Of words and of characters: errors over the length of all transcripts (jiwer)."""
    jiwer = extra("jiwer")
    texts = list(transcripts), list(hypotheses)
    return float(jiwer.wer(*texts)), float(jiwer.cer(*texts))


def characters(texts: Sequence[str]) -> tuple[str, ...]:
    """Of all texts, in a fixed order; the blank between words is one."""
    return tuple(sorted(set().union(*texts)))


def frames_needed(text: str) -> int:
    """By CTC: a frame per character, and one between equal neighbours, which would be read as one character."""
    return len(text) + sum(a == b for a, b in pairwise(text))


def notes_on_texts(dataset: Dataset) -> list[str]:
    """How texts are read, and characters that no probe can write since train has none of them."""
    texts, notes = dataset.labels(), []
    for part in dataset.rounds:
        where = f" (fold {part.fold})" if part.fold else ""
        known = set(characters([texts[i] for i in part.train]))
        if part is dataset.rounds[0]:
            notes.append(
                f"transcripts are taken as they are written, case and punctuation count; characters of train{where}, "
                f"beside the blank: {_shown(known - {' '})}"
            )
        others = [i for i in (*part.valid, *part.test) if set(texts[i]) - known]
        if others:
            unknown = _shown(set().union(*(texts[i] for i in others)) - known)
            notes.append(
                f"{clips(len(others))} of valid and test{where} {'has' if len(others) == 1 else 'have'} characters that no transcript of train has "
                f"({unknown}): they count as errors. The first is {dataset.rows[others[0]].where}"
            )
    return notes


def notes_on_lengths(dataset: Dataset, name: str, frames: Frames) -> list[str]:
    """Clips with fewer frames than their transcript needs: left out of train; judged with the errors that they must have."""
    texts, notes = dataset.labels(), []
    parts: Mapping[str, tuple[str, str]] = {  # of one, of several
        "train": ("does not train", "do not train"),
        "valid": ("keeps the errors that this makes", "keep the errors that this makes"),
        "test": ("keeps the errors that this makes", "keep the errors that this makes"),
    }
    for part in dataset.rounds:
        for split, done in parts.items():
            short = [i for i in getattr(part, split) if not _fits(dataset, texts, frames, i)]
            if short:
                text, count = texts[short[0]], len(frames.of(dataset.rows[short[0]].file))
                where = f" (fold {part.fold})" if part.fold else ""
                notes.append(
                    f"{name}: {clips(len(short))} of {split}{where} with fewer frames than CTC needs for the transcript {done[len(short) > 1]}. "
                    f"The first is {dataset.rows[short[0]].where}: {count} frames, {frames_needed(text)} needed"
                )
    return notes


def trained_on(dataset: Dataset, name: str, part: Round, frames: Frames) -> list[int]:
    """Rows of train that are long enough for their transcript. Raises FileError where none is."""
    texts = dataset.labels()
    found = [i for i in part.train if _fits(dataset, texts, frames, i)]
    if not found:
        raise FileError(
            f"{dataset.task.name}: {name} gives every clip of train fewer frames than CTC needs for its transcript."
        )
    return found


def _fits(dataset: Dataset, texts: Sequence[str], frames: Frames, i: int) -> bool:
    return len(frames.of(dataset.rows[i].file)) >= frames_needed(texts[i])


def _shown(found: set[str]) -> str:
    """The first ones, of alphabets of thousands."""
    some = "".join(sorted(found)[:MOST])
    return some if len(found) <= MOST else f"{some}… ({len(found)})"
