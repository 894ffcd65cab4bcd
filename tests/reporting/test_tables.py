"""What `trace` and `plan` print."""

from __future__ import annotations

import re

import pytest

from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec
from permgraph.reporting.steps import steps_text
from permgraph.reporting.tables import counts, rows, spec_text, symmetry
from permgraph.reporting.text import clean, fold_names, ranges
from permgraph.reporting.tree import tree_text
from tests.reporting import made


@pytest.fixture(scope="module")
def spec() -> PermSpec:
    return made.spec(made.trace(12), 12, unknown=True)


def test_equal_groups_share_a_row_and_copies_add_up(spec: PermSpec) -> None:
    found = {row.name: (row.symmetry, row.copies, row.tensors) for row in rows(spec)}
    assert found == {
        "cnn.0-2": ("S16", 3, (2, 2)),
        "heads.0-11": ("S4 ≀ (S6 qk × S6 v)", 12, (7, 7)),
        "ffn.0-11": ("S48", 12, (3, 3)),
    }


def test_a_gap_or_another_size_starts_a_new_row() -> None:
    groups = [Group(f"ffn.{i}", "ffn", size) for i, size in [(0, 8), (1, 8), (2, 9), (4, 9)]]
    assert [r.name for r in rows(PermSpec("m", "", tuple(groups), ()))] == ["ffn.0-1", "ffn.2", "ffn.4"]


def test_symmetry_of_nested_groups() -> None:
    groups = (
        Group("heads.0", "heads", 2),
        Group("heads.0/rep", "heads/rep", 4, ("heads.0",), 2),
        Group("heads.0/rep/qk", "heads/rep/qk", 8, ("heads.0", "heads.0/rep"), 8),
        Group("heads.0/v", "heads/v", 6, ("heads.0",), 2),
        Group("residual.0", "residual", 16),
        Group("residual.0/channel", "residual/channel", 48, ("residual.0",), 16),
    )
    spec = PermSpec("m", "", groups, ())
    assert symmetry(spec, groups[0]) == "S2 ≀ ((S4 ≀ S8) rep × S6 v)"
    assert symmetry(spec, groups[4]) == "S16 ≀ S48"
    assert symmetry(spec, groups[3]) == "S6"


def test_notes_say_what_pins_the_rest(spec: PermSpec) -> None:
    text = spec_text(spec, width=1000)
    assert "pinned by output: 864 coordinates on 36 axes: encoder.layers.0-11.ffn.down.weight[0]" in text
    assert (
        "op without a rule: aten.sort.default at x, in head (model.py:9); all it touches is pinned." in text
    )
    assert "unused by the network: masked_spec_embed." in text
    assert f"log10 {spec.log10_order:,.1f}" in text


def test_no_groups_is_said_in_words() -> None:
    assert spec_text(PermSpec("m", "", (), ())).startswith("m has no permutation group.")


def test_unfolded_there_is_a_row_for_each_group(spec: PermSpec) -> None:
    assert [row.name for row in rows(spec, unfold=True)] == [g.name for g in spec.groups if not g.ancestors]


def test_counts_say_what_they_count(spec: PermSpec) -> None:
    assert counts(spec) == "27 composite groups of 51 elementary groups"
    chosen = ("heads.3", "heads.3/v", "ffn.1")
    said = "3 of 51 elementary groups selected, in 2 of 27 composite groups"
    assert counts(spec, chosen) == said
    assert said in steps_text(Plan(spec, chosen), width=200)
    assert counts(spec) in spec_text(spec) and counts(spec) in tree_text(spec)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_what_is_printed_fits_and_no_name_is_broken(spec: PermSpec, width: int) -> None:
    plan = Plan(spec, tuple(spec.by_name))
    for text in (
        spec_text(spec, width=width),
        steps_text(plan, width=width),
        steps_text(plan, unfold=True, width=width),
        tree_text(spec, plan, width=width),
    ):
        assert max(map(len, text.splitlines())) <= width
    unfolded = steps_text(plan, unfold=True, width=width).split()
    assert {str(step) for step in plan.steps} <= set(unfolded)
    modules = {word.strip(",") for row in rows(spec) for word in row.modules.split()}
    assert modules <= {word.strip(",") for word in spec_text(spec, width=width).split()}


def test_folded_steps_stand_for_exactly_the_steps(spec: PermSpec) -> None:
    plan = Plan(spec, tuple(spec.by_name))
    lines = [re.split("  +", line) for line in steps_text(plan, width=1000).splitlines()[1:]]
    lines = lines[: lines.index([""])]
    said = [pair for _, groups, _, copies, axis in lines for pair in expanded(groups, axis, int(copies))]
    chosen = set(plan.selected)
    steps = [(", ".join(n for n in step.layout if n in chosen), str(step)) for step in plan.steps]
    assert sorted(said) == sorted(steps) and len(lines) < len(steps) / 3


def expanded(groups: str, axis: str, copies: int) -> list[tuple[str, str]]:
    """What a folded row stands for: the i-th number of every range together."""

    def nth(text: str, i: int) -> str:
        return re.sub(r"(\d+)-(\d+)", lambda m: str(int(m[1]) + i), text)

    return [(nth(groups, i), nth(axis, i)) for i in range(copies)]


def test_tree_shows_what_lives_within_what_and_what_a_plan_moves(spec: PermSpec) -> None:
    lines = tree_text(spec, Plan(spec, ("heads.3", "heads.3/v", "ffn.1")), width=200).splitlines()
    squeezed = [re.sub("  +", "  ", line) for line in lines[2:]]
    assert squeezed == [
        "├─ cnn.0-2  S16  3  1",
        "├─ heads.0-2  S4  3  1",
        "│  ├─ heads.0-2/qk  S6  3  4",
        "│  └─ heads.0-2/v  S6  3  4",
        "├─ heads.3 *  S4  1  1",
        "│  ├─ heads.3/qk  S6  1  4",
        "│  └─ heads.3/v *  S6  1  4",
        "├─ heads.4-11  S4  8  1",
        "│  ├─ heads.4-11/qk  S6  8  4",
        "│  └─ heads.4-11/v  S6  8  4",
        "├─ ffn.0  S48  1  1",
        "├─ ffn.1 *  S48  1  1",
        "└─ ffn.2-11  S48  10  1",
    ]


def test_steps_read_as_a_person_would(spec: PermSpec) -> None:
    plan = Plan(spec, ("heads.3", "heads.3/v", "ffn.1"))
    lines = steps_text(plan, unfold=True, width=200).splitlines()
    squeezed = [re.sub("  +", "  ", line) for line in lines]
    layer = "encoder.layers.3.attention"
    assert f"permute  heads.3, heads.3/v  heads 4 × v 6  1  {layer}.v_proj.weight[0]" in squeezed
    assert f"permute  heads.3  heads 4 × qk 6  1  {layer}.q_proj.bias[0]" in squeezed
    assert "un-permute  ffn.1  ffn 48  1  encoder.layers.1.ffn.down.weight[1]" in squeezed
    assert lines[-1].endswith(": 10 steps on 10 tensors, 8 permute, 2 un-permute; mode exact.")
    assert len(lines) == len(plan.steps) + 3


def test_broken_ties_are_printed(spec: PermSpec) -> None:
    plan = Plan(spec, ("ffn.1",), "one-sided", broken=("ffn.1: up.weight[0] stays",))
    said = steps_text(plan, width=1000)
    assert "Mode one-sided does not keep the function. Largest change of an output: not measured." in said
    assert said.endswith("\nbroken tie: ffn.1: up.weight[0] stays")


@pytest.mark.parametrize(
    "name", ["</title><script>", "[red]x[/red]", "a\x1b[31mb", "x" * 10_000, "a\nb", "a\u202eb"]
)
def test_hostile_names_reach_no_terminal(name: str) -> None:
    group = Group("ffn.0", "ffn", 3, module=name)
    spec = PermSpec(name, "", (group,), (), unused=(name,))
    shown = "\n".join((spec_text(spec), tree_text(spec)))
    assert "\x1b" not in shown and "\u202e" not in shown
    assert max(map(len, shown.splitlines())) < 600
    assert "[red]" in shown or "[red]" not in name


def test_folded_names_stand_for_exactly_the_names_given() -> None:
    names = [f"a.{i}.b.{j}.w" for i in range(3) for j in range(2)] + ["a.7.b.0.w", "c"]
    folded = fold_names(names)
    assert folded == ["a.0-2.b.0-1.w", "a.7.b.0.w", "c"]
    assert fold_names(["x.0.y.1", "x.1.y.0"]) == ["x.0.y.1", "x.1.y.0"]
    assert fold_names(["conv1d_2", "conv1d_3"]) == ["conv1d_2", "conv1d_3"]


def test_ranges_and_clean() -> None:
    assert ranges([5, 2, 1, 0]) == "0-2,5"
    assert clean("a\x1bb") == "a\\x1bb"
    assert len(clean("y" * 500, 80)) == 80
