"""What `trace` and `plan` print."""

from __future__ import annotations

import io
import re

import pytest

from permgraph.ir.plan import Plan
from permgraph.ir.spec import Group, PermSpec
from permgraph.reporting.tables import print_spec, rows, spec_text, steps_text, symmetry
from permgraph.reporting.text import clean, fold_names, ranges
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
    text = spec_text(spec)
    assert "pinned by output: 864 coordinates on 36 axes: encoder.layers.0-11.ffn.down.weight[0]" in text
    assert (
        "op without a rule: aten.sort.default at x, in head (model.py:9); all it touches is pinned." in text
    )
    assert "unused by the network: masked_spec_embed." in text
    assert f"log10 {spec.log10_order:,.1f}" in text


def test_no_groups_is_said_in_words() -> None:
    assert spec_text(PermSpec("m", "", (), ())).startswith("m has no permutation group.")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_and_pipe_show_the_same_cells(spec: PermSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    terminal, pipe = Terminal(), io.StringIO()
    print_spec(spec, terminal)
    print_spec(spec, pipe)
    for row in rows(spec):
        for cell in row.cells():
            assert cell in terminal.getvalue() and cell in pipe.getvalue()
    assert "\x1b" not in pipe.getvalue()


def test_steps_read_as_a_person_would(spec: PermSpec) -> None:
    plan = Plan(spec, ("heads.3", "heads.3/v", "ffn.1"))
    lines = steps_text(plan).splitlines()
    squeezed = [re.sub("  +", "  ", line) for line in lines]
    assert (
        "permute  encoder.layers.3.attention.v_proj.weight[0]  heads 4 × v 6  heads.3, heads.3/v" in squeezed
    )
    assert "permute  encoder.layers.3.attention.q_proj.bias[0]  heads 4 × qk 6  heads.3" in squeezed
    assert "un-permute  encoder.layers.1.ffn.down.weight[1]  ffn 48  ffn.1" in squeezed
    assert lines[-1] == "10 steps on 10 tensors: 8 permute, 2 un-permute; mode exact."
    assert len(lines) == len(plan.steps) + 2


def test_broken_ties_are_printed(spec: PermSpec) -> None:
    plan = Plan(spec, ("ffn.1",), "one-sided", broken=("ffn.1: up.weight[0] stays",))
    said = steps_text(plan)
    assert "Mode one-sided does not keep the function. Largest change of an output: not measured." in said
    assert said.endswith("\nbroken tie: ffn.1: up.weight[0] stays")


@pytest.mark.parametrize(
    "name", ["</title><script>", "[red]x[/red]", "a\x1b[31mb", "x" * 10_000, "a\nb", "a\u202eb"]
)
def test_hostile_names_reach_no_terminal(name: str) -> None:
    group = Group("ffn.0", "ffn", 3, module=name)
    spec = PermSpec(name, "", (group,), (), unused=(name,))
    terminal, pipe = Terminal(), io.StringIO()
    print_spec(spec, terminal)
    print_spec(spec, pipe)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()) + pipe.getvalue()
    assert "\x1b[31m" not in terminal.getvalue() + pipe.getvalue()
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
