"""What the name of a task, or of its metric, says in a table of results: the domain, and whether less is better."""

from __future__ import annotations

import re

from permgraph.evaluation.task import LOWER, Task, load_task, task_names

_ERRORS = frozenset(("wer", "cer", "per", "eer", "der", "error", "errors", "error rate"))
_SHARES = frozenset(("acc", "accuracy"))


def less_is_better(task: str, metric: str = "") -> bool:
    """By the metric alone, where one is given; else by the task's name (asr-wer, EER (%), ↓), or as specs/tasks says."""
    text = metric or task
    if "↑" in text or "↓" in text:
        return "↑" not in text
    ends = _ends(text)
    if ends & _ERRORS:
        return True
    if metric or ends & _SHARES:
        return False
    known = _known(task)
    return known is not None and known.metric in LOWER


def domain_of(task: str) -> str:
    """ "" where no task of specs/tasks has this name."""
    known = _known(task)
    return known.domain if known else ""


def _ends(text: str) -> set[str]:
    """The last word, with and without what is in brackets: WER (%), PR (PER). A word before it may be plain English:
    tone-per-clip, error-detection."""
    found = set()
    for part in (text, re.sub(r"\(.*?\)|\[.*?\]", " ", text)):
        words = re.findall(r"[^\W\d_]+", part.lower())
        found |= {" ".join(words[-1:]), " ".join(words[-2:])}
    return found


def _known(task: str) -> Task | None:
    """The task of specs/tasks that a column is named after: "ASR", "ESC-50 (acc)"."""
    name = re.split(r"[ (/↓↑]", task.strip().lower())[0]
    return load_task(name) if name in task_names() else None
