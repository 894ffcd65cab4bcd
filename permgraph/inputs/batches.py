"""Batches that are not audio: of a function of the user's, or of text files with a folder's own tokenizer."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any

from permgraph.errors import FileError, MatchError, TraceError, reason
from permgraph.frontend.factory import call_function

Progress = Callable[[int, int], None]


class Batches:
    """Batches to calibrate on, read anew on every pass.

    make      begins a pass
    identity  what tells these data from others, for a run that is resumed
    notes     what is to be said of them
    total     batches of a pass, or at most so many; 0 where only the pass shows it
    """

    def __init__(
        self, make: Callable[[], Iterable[Any]], identity: str, notes: tuple[str, ...] = (), total: int = 0
    ) -> None:
        self._make, self.identity, self.notes, self.total = make, identity, notes, total
        self.progress: Progress = lambda done, total: None

    def __iter__(self) -> Iterator[Any]:
        done = 0
        for done, batch in enumerate(self._make(), 1):
            yield batch
            self.progress(done, self.total)
        if done != self.total:
            self.progress(done, done)


def user_batches(text: str, limit: int | None = None) -> Batches:
    """What the function `file.py:batches` yields: anything that `permgraph.calibrate` takes. Its file is run.

    limit  at most so many batches; what is shown as the total until the function has returned a list, say

    Raises UsageError when there is no such function, TraceError when it fails or gives nothing to go through.
    """

    def make() -> Iterator[Any]:
        found = call_function(text)
        if not isinstance(found, Iterable) or isinstance(found, (str, bytes, dict)):
            raise TraceError(f"{text}: returned a {type(found).__name__}; it must yield batches.")
        if isinstance(found, Sized):
            batches.total = len(found) if limit is None else min(len(found), limit)
        for count, batch in enumerate(found):
            if limit is not None and count >= limit:
                return
            yield batch

    place = Path(text.rpartition(":")[0]).expanduser()
    code = hashlib.sha256(place.read_bytes()).hexdigest()[:16] if place.is_file() else ""
    batches = Batches(make, f"{text} {code}", total=limit or 0)
    return batches


def text_batches(
    folder: Path, files: list[str], batch: int = 4, limit: int | None = 200, length: int = 128
) -> Batches:
    """Lines of text files as tokens of the folder's tokenizer, equal lengths together: nothing is padded.

    length  tokens of a line at most; longer lines are cut
    limit   at most so many lines, from the beginning

    Raises FileError for a file that cannot be read, MatchError when the folder has no tokenizer or there is no text.
    """
    tokenizer = _tokenizer(folder)
    lines = text_lines(files)[:limit]
    tokens: dict[int, list[list[int]]] = defaultdict(list)
    for line in lines:
        ids = tokenizer(line, truncation=True, max_length=length)["input_ids"]
        if ids:
            tokens[len(ids)].append(list(ids))
    if not tokens:
        raise MatchError(f"{', '.join(files)}: no text in it.")

    def make() -> Iterator[Any]:
        import torch

        for same in tokens.values():
            for start in range(0, len(same), batch):
                yield {"input_ids": torch.tensor(same[start : start + batch])}

    identity = hashlib.sha256(repr([*tokens.values()]).encode()).hexdigest()
    total = sum(-(-len(same) // batch) for same in tokens.values())
    return Batches(make, identity, (f"{len(lines)} lines of text, the tokenizer of {folder.name}",), total)


def text_lines(files: Sequence[str]) -> list[str]:
    """The lines of text files, without empty ones. Raises FileError for one that cannot be read or holds no text."""
    found: list[str] = []
    for file in files:
        lines = _lines(Path(file))
        if not lines:
            raise FileError(f"{file}: no text in it.")
        found += lines
    return found


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever transformers makes of a folder
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MatchError(f"{folder}: --text needs its tokenizer, which cannot be read: {line}") from error


def _lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{file}: cannot read this text: {reason(error)}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
