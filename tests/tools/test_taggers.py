"""The measures of docs/taggers.md, and the taggers: of a tagger and itself in another order nothing is lost."""

from __future__ import annotations

import numpy as np
import pytest
import taggers as tool
import torch
from networks import pretrained as p
from networks import taggers as t

import permgraph as pg
from permgraph.matching.calibration import calibrate
from permgraph.matching.matchers import match


def test_agreement_is_a_correlation_about_each_tags_mean() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((2, 400, 6))
    assert tool.agreement(one, 3 * one + rng.standard_normal(6)) == pytest.approx(1)
    assert tool.agreement(one, -one) == pytest.approx(-1)
    assert (
        abs(tool.agreement(one + 5 * np.arange(6), other + 5 * np.arange(6))) < 0.1
    )  # tags that are always likely
    assert tool.agreement(one, np.zeros_like(one)) == 0


def test_the_probe_separates_what_can_be_and_nothing_else() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(12).repeat(10)
    centres = 3 * torch.randn(12, 20, generator=generator, dtype=torch.float64)

    def drawn(spread: float) -> torch.Tensor:
        noise = torch.randn(120, 20, generator=generator, dtype=torch.float64)
        dead = torch.full((120, 3), 7.0, dtype=torch.float64)  # features that never vary
        return torch.cat([spread * centres[labels] + noise, dead], 1)

    def right(spread: float) -> float:
        return float((tool.probe(drawn(spread), labels, drawn(spread)) == labels.numpy()).mean())

    assert right(1.0) > 0.9 and right(0.0) < 0.25


def test_an_interval_holds_the_value_and_narrows() -> None:
    values = np.random.default_rng(0).random(800)

    def ends(count: int) -> list[float]:
        text = tool.interval(lambda i: float(values[i].mean()), count)
        return [float(x) for x in text.replace("(", "").replace(")", "").replace("to ", "").split()]

    (few, low, high), (many, lowest, highest) = ends(20), ends(800)
    assert low < few < high and lowest < many < highest and highest - lowest < (high - low) / 3


@pytest.mark.slow
@p.needs_data
@pytest.mark.parametrize("name", [pytest.param("music_vgg_mtt", marks=pytest.mark.slow), "music_musicnn_mtt"])
def test_a_tagger_in_another_order_is_brought_back(name: str) -> None:
    """All but the units that never vary, which any order serves."""
    model, moved = t.load(name), t.load(name)
    notes, _ = t.notes("valid", 1)
    plan = pg.plan(pg.infer(pg.trace(model, (notes[:1],))))
    assert sum(g.size for g in plan.groups) == (640 if "vgg" in name else 204 * 2 + 51 * 3 + 64 + 200)
    planted = pg.random_permutations(plan, seed=1)
    moved.load_state_dict(pg.apply(plan, planted, moved.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(moved(notes[:2]), model(notes[:2]), rtol=1e-3, atol=1e-3)
        perms = match(plan, calibrate(plan, model, moved, [notes[:6]]))
        mean = tool.averaged(model, moved, plan, perms, 0.5)
        plain = tool.averaged(model, moved, plan, None, 0.5)
        want, found, worse = (m(notes[:6]).double().numpy() for m in (model, mean, plain))
    assert tool.agreement(found, want) > 0.9 > tool.agreement(worse, want)
