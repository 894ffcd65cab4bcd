"""docs/results.md: the finding, the sections, Table II."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from real_pairs import table

from permgraph.evaluation.bootstrap import Interval
from permgraph.evaluation.results import Retained
from permgraph.evaluation.scoring import Scores
from permgraph.evaluation.significance import holm
from permgraph.reporting.sections import MatchingReport
from reproduction.comparisons import Judged
from reproduction.judging import BOTH, SHARES
from reproduction.rows import Experiment, Section

HEAD = """# Merged encoders, judged

Two encoders, A (`{a}`) and B (`{b}`), averaged as λ·A + (1 - λ)·B in many ways. Of those that are trained by recipes of this
repository, [encoders.md](encoders.md) tells how good they are, and what the gate says of them. Written by

    {command}

from the rows of {rows}. Accuracy on test by the head `{head}`; numbers of a domain are means over its tasks. In brackets 95 %
intervals, by drawing speakers, recordings or clips and pre-training runs anew, {runs} of them where a row does not say another
number; differences are paired. `score` is Eq. 6: 0 is log-mel, 1000 the better parent of every task; a task whose better parent is not
above log-mel has none. Accuracy and interval of every task: results.csv beside this page.
"""


LEFT = """R² of each parent's layers, frame by frame, from the same layers of run 0 of a merge (ridge, on clips of test; the mean over the
data sets): 1 is all of it.
"""


@dataclass(frozen=True)
class Page:
    """What a page tells. `domains`: name → its tasks. `valid`: accuracy there of candidates. `moved`: Table II by row. `left`: R² of the
    parents' layers from those of a merge."""

    experiment: Experiment
    parents: tuple[str, str]
    judged: Judged
    scores: Scores
    domains: Mapping[str, Sequence[str]]
    runs: Mapping[str, int]
    valid: Mapping[str, float]
    moved: Mapping[str, MatchingReport]
    left: Sequence[Retained]

    def text(self, command: str, rows: str) -> str:
        """`command`: what wrote it; `rows`: the file of its experiment."""
        a, b = self.parents
        told = {"command": command, "rows": rows, "head": self.experiment.head, "runs": self.runs[a]}
        head = HEAD.format(a=a, b=b, **told)
        sections = [self._section(section) for section in self.experiment.sections]
        return "\n".join(
            [
                head,
                self._finding(),
                self._parents(),
                *filter(None, [*sections, self._left()]),
                self._moved(),
                self._refused(),
            ]
        )

    def _finding(self) -> str:
        """Aligned beside plain interpolation, a random order and the better parent, at the paper's weights."""
        every = {**self.domains, "all": [t for tasks in self.domains.values() for t in tasks]}
        found: list[tuple[str, str, str, Interval, float]] = []
        for mark, share, (domain, tasks) in product(("", "'"), SHARES, every.items()):
            row = f"aligned{mark} {share:g}"
            parents = [f"{name}{mark}" for name in self.parents]
            if row in self.judged.counts:
                better = max(parents, key=lambda name: self.judged.mean(name, tasks).value)
                for other in (f"plain{mark} {share:g}", f"random{mark} {share:g}", better):
                    if other in self.judged.counts:
                        spread = self.judged.difference(row, other, tasks)
                        found.append((row, other, domain, spread, self.judged.p(row, other, tasks)))
        adjusted = holm([p for *_, p in found])
        rows: list[list[object]] = [
            [first, second, domain, _signed(spread), f"{p:.2g}", f"{corrected:.2g}"]
            for (first, second, domain, spread, p), corrected in zip(found, adjusted, strict=True)
        ]
        words = "p is McNemar's, over the clips of all tasks of the domain; then Holm's, over this table.\n"
        return f"## The finding\n\n{words}\n{table(['row', 'beside', 'domain', 'difference', 'p', 'p (Holm)'], rows)}"

    def _parents(self) -> str:
        a, b = self.parents
        names = [a, b, BOTH, *(n for n in (f"{a}'", f"{b}'") if n in self.judged.counts)]
        floors = [name for name in self.judged.counts if name.startswith("log-mel")]
        return f"## Parents\n\n`{BOTH}`: a probe that has the features of both, the ceiling of a merge.\n\n{self._table([*floors, *names])}"

    def _section(self, section: Section) -> str:
        names = [name for *_, name in section.names() if name in self.judged.counts]
        if not names:
            return ""
        text = f"## {section.title}\n\n{section.about}\n\n{self._table(names)}"
        return text + self._choice(names) if section.candidates else text

    def _choice(self, names: Sequence[str]) -> str:
        """Of candidates and the row they change, the best on valid; and what it is on test."""
        base = "aligned 0.5"
        known = {name: self.valid[name] for name in (base, *names) if name in self.valid}
        if not known:
            return ""
        best = max(known, key=lambda name: known[name])
        told = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
        text = f"\nOn valid, the mean over all tasks: {told}. The best there is **{best}**."
        if best == base:
            return text + " No change is better on valid.\n"
        tasks = [t for of in self.domains.values() for t in of]
        for other in (base, "plain 0.5"):
            spread, p = self.judged.difference(best, other, tasks), self.judged.p(best, other, tasks)
            text += f" On test, beside {other}: {_signed(spread)}, p = {p:.2g}."
        return text + "\n"

    def _table(self, names: Sequence[str]) -> str:
        head = [
            "row",
            *(f"{d} ({len(tasks)})" for d, tasks in self.domains.items()),
            *(f"score {d}" for d in self.scores.counted),
        ]
        rows: list[list[object]] = []
        for name in names:
            runs = self.runs.get(name, 1)
            told = (
                name
                if runs == self.runs[self.parents[0]] or name.startswith("log-mel")
                else f"{name}, {runs} run{'s' * (runs > 1)}"
            )
            means = [_plain(self.judged.mean(name, tasks)) for tasks in self.domains.values()]
            scores = [self.scores.scores.get((name, d)) for d in self.scores.counted]
            rows.append([told, *means, *("" if s is None else f"{s:.0f}" for s in scores)])
        return table(head, rows)

    def _left(self) -> str:
        """Why: how much of each parent a ridge regression finds again in a merge, without labels."""
        if not self.left:
            return ""
        last = max(one.layer for one in self.left)
        rows: list[list[object]] = []
        for name in dict.fromkeys(one.encoder for one in self.left):
            cells: list[object] = [name]
            for parent in self.parents:
                mine = [one for one in self.left if (one.encoder, one.parent) == (name, parent)]
                cells += [
                    f"{np.mean([one.r2 for one in mine if one.layer in layers]):.2f}"
                    for layers in ([0], range(1, last), [last])
                ]
            rows.append(cells)
        head = [
            "row",
            *(f"{p}, {layers}" for p in self.parents for layers in ("layer 0", "between", "last layer")),
        ]
        return f"## What is left of the parents\n\n{LEFT}\n{table(head, rows)}"

    def _moved(self) -> str:
        parts = [f"### {name}\n\n```text\n{report}\n```\n" for name, report in self.moved.items()]
        return "## Units moved (Table II)\n\nRun 0, by the paper's sections.\n\n" + "\n".join(parts)

    def _refused(self) -> str:
        lines = [f"- {task} has no score: {why}." for task, why in self.scores.refused.items()]
        return "\n".join(["## Tasks without a score\n", *lines, ""]) if lines else ""


def _plain(spread: Interval) -> str:
    return f"{spread.value:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def _signed(spread: Interval) -> str:
    return f"{spread.value:+.3f} ({spread.low:+.3f} to {spread.high:+.3f})"
