"""Figures as files: which are written, that they are equal each time, and what curves over the weight of A hold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from permgraph.errors import FileError
from permgraph.evaluation.curves import curves
from permgraph.evaluation.tables import load_table
from permgraph.ir.moments import Layout, Moments, ProbeMoments
from permgraph.ir.permutations import Permutations, random_permutations
from permgraph.ir.plan import Plan
from permgraph.ir.sums import Sums
from permgraph.reporting.figures import matching, weights
from tests.reporting import made
from tests.test_cli import run

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

TABLE = """task,domain,encoder,metric,value
ks,speech,log-mel (ridge),accuracy,0.5
ks,speech,A,accuracy,0.9
ks,speech,B,accuracy,0.6
ks,speech,plain 0.9,accuracy,0.8
ks,speech,plain 0.5,accuracy,0.55
ks,speech,merged-0.90,accuracy,0.85
ks,speech,merged-0.50,accuracy,0.7
sid,speech,log-mel (ridge),accuracy,0.3
sid,speech,A,accuracy,0.7
sid,speech,B,accuracy,0.4
sid,speech,plain 0.9,accuracy,0.6
sid,speech,plain 0.5,accuracy,0.35
sid,speech,merged-0.90,accuracy,0.65
sid,speech,merged-0.50,accuracy,0.5
asr,speech,log-mel (ridge),wer,0.9
asr,speech,A,wer,0.1
genre,music,log-mel (ridge),accuracy,0.2
genre,music,A,accuracy,0.3
genre,music,B,accuracy,0.8
genre,music,plain 0.9,accuracy,0.4
genre,music,plain 0.5,accuracy,0.5
genre,music,merged-0.90,accuracy,0.45
genre,music,merged-0.50,accuracy,0.7
"""


def planted() -> tuple[Plan, Permutations, Moments]:
    """B's channels are A's in another order, with noise."""
    trace = made.trace(2)
    plan = Plan(made.spec(trace, 2), ("cnn.0", "heads.0", "heads.0/v", "ffn.0"))
    perms = random_permutations(plan, 1)
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4000, 16))
    b = np.empty_like(a)
    b[:, perms["cnn.0"]] = a + 0.3 * rng.normal(size=a.shape)
    zero = np.zeros((1, 16))
    of_a, of_b = (Sums(len(x), zero, x.sum(0)[None], (x**2).sum(0)[None]) for x in (a, b))
    probe = ProbeMoments(Layout(("cnn.0",), (16,)), of_a, of_b, (a.T @ b)[None])
    return plan, perms, Moments({"p": probe}, plan.origin)


def test_with_moments_there_are_heat_maps_before_and_after_and_sorted_units(tmp_path: Path) -> None:
    plan, perms, moments = planted()
    names = {"by_depth", "before_after", "sorted"}
    first, second = (list(matching.draw(plan, perms, moments, tmp_path / d)) for d in "ab")
    assert {p.name for p in first} == {f"{n}.{form}" for n in names for form in ("svg", "pdf")}
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_units_that_are_the_same_correlate_with_their_partner_alone() -> None:
    plan, perms, moments = planted()
    found = matching._correlations(plan, plan.spec.by_name["cnn.0"], perms, moments)
    assert found["correlation"].min() > 0.9
    fixed = perms["cnn.0"] == np.arange(16)
    assert abs(found["identity"][~fixed]).max() < 0.2
    assert matching._correlations(plan, plan.spec.by_name["ffn.0"], perms, moments) == {}


def test_curves_are_means_by_domain_and_end_at_the_parents(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(TABLE)
    table = load_table(tmp_path / "results.csv")
    speech, music = curves(table, ["A", "B"])
    assert speech.tasks == ("ks", "sid") and music.tasks == ("genre",), "asr counts errors, and rows lack it"
    assert set(speech.families) == {"plain", "merged"}
    merged, plain = (dict(x) for x in (speech.families["merged"], music.families["plain"]))
    assert merged == pytest.approx({0.0: 0.5, 0.5: 0.6, 0.9: 0.75, 1.0: 0.8})
    assert speech.baseline and speech.baseline[0] == "log-mel (ridge)"
    assert speech.baseline[1] == pytest.approx(0.4)
    assert plain == pytest.approx({0.0: 0.8, 0.5: 0.5, 0.9: 0.4, 1.0: 0.3})
    assert [w for w, _ in curves(table)[0].families["plain"]] == [0.5, 0.9]


def test_the_command_writes_them(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(TABLE)
    said = run("score", tmp_path / "results.csv", "--parents", "A,B", "--figures", tmp_path / "f")
    assert said.code == 0, said.err
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["weights.pdf", "weights.svg"]
    (tmp_path / "plain.csv").write_text("encoder,ks\nFBANK,1\nA,2\n")
    said = run("score", tmp_path / "plain.csv", "--figures", tmp_path / "g")
    assert said.code == 2 and "no two rows of the table are named by one" in said.err
    assert not (tmp_path / "g").exists()


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plan, perms, _ = planted()
    with pytest.raises(FileError, match=r"pip install 'permgraph\[figures\]'"):
        list(matching.draw(plan, perms, None, tmp_path / "a"))


def test_curves_of_many_families_can_be_told_apart() -> None:
    looks = [weights._look(number) for number in range(64)]
    assert len({(look["color"], look["marker"]) for look in looks}) == 64
