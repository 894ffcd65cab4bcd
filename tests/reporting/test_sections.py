"""Table II: sections as the paper names them, and what a random order would leave in place."""

from __future__ import annotations

import numpy as np
import pytest
from networks.traced import spec

import permgraph as pg
from permgraph.ir.names import in_order
from permgraph.matching.matchers import match
from permgraph.matching.scores import measure
from permgraph.reporting.sections import section_rows, sections_text


def test_sections_are_those_of_the_paper() -> None:
    plan = pg.plan(spec("hubert"), "cnn,heads,qk,ffn2")
    report = match(plan, None, "random").report
    rows = {row[0]: row for row in section_rows(report)}
    assert list(rows) == ["CNN layer 0", "CNN layers 1-2", "heads", "heads/qk", "attention output", "W2"]
    assert rows["CNN layers 1-2"][1] == "32" and rows["attention output"][1] == "48" and rows["W2"][1] == "80"
    assert all(
        int(row[2].replace(",", "")) + int(row[4]) == int(row[1].replace(",", "")) for row in rows.values()
    )
    assert [r[0] for r in section_rows(report, by_section=False)] == list(
        in_order(dict.fromkeys(plan.selected))
    )
    assert sections_text(report).splitlines()[0].split()[:3] == ["section", "units", "moved"]


def test_the_same_units_are_w1_where_they_were_matched_leaving_it() -> None:
    for word, section in (("ffn1", "W1"), ("ffn2", "W2"), ("ffn", "W2"), ("ffn.0", "W2")):
        report = match(pg.plan(spec("hubert"), word), None, "random").report
        assert [row[0] for row in section_rows(report)] == [section]


@pytest.mark.parametrize("groups", ["heads", "heads.*/v", "heads,qk", "ffn"])
def test_fixed_points_expected_by_chance_are_those_of_random_elements(groups: str) -> None:
    plan = pg.plan(spec("hubert"), groups)
    found = [measure(plan, pg.random_permutations(plan, seed), {}) for seed in range(400)]
    for name, row in found[0].items():
        mean = np.mean([rows[name]["fixed"] for rows in found])
        spread = np.std([rows[name]["fixed"] for rows in found]) / len(found) ** 0.5
        assert abs(mean - row["by_chance"]) < 4 * spread + 1e-9
