"""The linter tells what is wrong with specifications of others, and is silent where nothing is."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from networks import MODELS
from networks.randomise import noise, randomise
from torch import nn

from permgraph.errors import FileError, UsageError
from permgraph.frontend.capture import capture
from permgraph.ir.codec import decode, encode
from permgraph.linter.judge import Lint
from permgraph.linter.notations import read_foreign
from permgraph.linter.report import LintReport, Summary, lint_files, lint_trace, measured
from permgraph.verification.function_check import TOLERANCE
from tests.linter.diffusion import TransformerBlock
from tests.linter.networks import ResNet
from tests.linter.reference import KNOWN, trace_of

BAD = Path(__file__).parent / "bad"


def block() -> tuple[nn.Module, tuple[object, ...]]:
    return randomise(TransformerBlock(16, 24)), (noise(1, 5, 16), noise(1, 7, 24, seed=2))


def small_resnet() -> tuple[nn.Module, tuple[object, ...]]:
    return randomise(ResNet((1,), 8, bottleneck=8, small=True)), (noise(1, 3, 8, 8),)


MADE = {
    "attention.txt": block,
    "batch-norm.json": MODELS["batch_norm"],
    "flatten.json": MODELS["flatten_head"],
    "tied.json": MODELS["tied_language_model"],
    "typo.json": small_resnet,
    "spaces.yaml": MODELS["llama_gqa_lm"],
}


@cache
def linted(name: str) -> Lint:
    """With measured changes: whatever the linter calls an error about a group does change the function."""
    module, inputs = MADE[name]()
    return measured(lint_trace(BAD / name, capture(module, inputs)), module, inputs)


def kinds(found: Lint) -> dict[str, list[str]]:
    """kind → where, or the group where there is no place."""
    table: dict[str, list[str]] = {}
    for finding in found.findings:
        table.setdefault(finding.kind, []).append(finding.where or finding.group)
    return table


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", MADE)
def test_what_is_called_no_symmetry_changes_the_function(name: str) -> None:
    found = linted(name)
    assert not found.sound
    changes = {f.group: f.change for f in found.findings if f.change is not None}
    unsound = {
        v.claim for v, c in zip(found.verdicts, found.claims, strict=True) if not v.contained and c.places
    }
    overlapping = {f.group for f in found.findings if f.kind == "moved twice"}
    assert set(changes) | overlapping >= unsound
    assert all(change > 1e3 * TOLERANCE for change in changes.values())


def test_single_axes() -> None:
    found = linted("attention.txt")
    assert kinds(found)["single axis"] == [
        "attn1.to_out.0.weight[1]",
        "attn2.to_q.weight[0]",
        "attn2.to_k.weight[0]",
        "norm1.weight[0]",
    ]
    assert kinds(found)["unknown tensor"] == ["betas[0]"]
    assert found.kept == 0


def test_forgotten_buffers() -> None:
    found = linted("batch-norm.json")
    assert kinds(found)["forgotten buffer"] == ["layers.1.running_mean[0]", "layers.1.running_var[0]"]
    assert found.kept == 1


def test_blocks_of_a_flatten_and_absent_axes() -> None:
    found = linted("flatten.json")
    assert kinds(found)["shape mismatch"] == ["hidden.weight[1]", "head.weight[5]"]
    texts = [f.text for f in found.findings if f.kind == "shape mismatch"]
    assert texts == [
        "the group has 9 units, hidden.weight has 144 on axis 1 = 9 × 16: each unit owns 16 of them.",
        "head.weight has shape (4, 11): there is no axis 5.",
    ]
    assert "forgotten tensor" not in kinds(found)  # it was named, and does not fit
    assert found.kept == 1


def test_tied_tensors_and_axes_moved_twice() -> None:
    found = linted("tied.json")
    assert kinds(found)["tied tensor"] == ["head.weight[1]"]
    assert kinds(found)["moved twice"] == ["down.weight[1]", "down.weight[1]"]
    assert kinds(found)["single axis"] == ["down.weight[1]"]


def test_the_typo_of_git_re_basin() -> None:
    """Its issue 10: the second convolution of a shortcut block stands where the third should."""
    found = linted("typo.json")
    wrong = {f.group for f in found.findings if f.severity == "error"}
    assert wrong == {"P_inner1", "P_inner2", "P_out"} and found.kept == 1


@pytest.mark.slow
def test_mergekit_spaces() -> None:
    """Residual and feed-forward spaces are symmetries; query-key and value spaces are not, with heads and rotary."""
    found = linted("spaces.yaml")
    assert Counter(v.claim.split("_")[0] for v in found.verdicts if v.contained) == {"residual": 1, "up": 2}
    assert Counter(v.claim.split("_")[0] for v in found.verdicts if not v.contained) == {"qk": 2, "v": 2}
    assert {f.text.split()[5] for f in found.findings if f.kind == "lacking"} >= {"heads.0", "heads.0/v"}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", ["git-re-basin-vgg16", "git-re-basin-resnet20", "mergekit-llama", "hubert"])
def test_nothing_is_wrong_with_what_is_known(name: str) -> None:
    network = {"git-re-basin-vgg16": "re_basin_vgg16", "git-re-basin-resnet20": "re_basin_resnet20"}
    found = lint_trace(KNOWN / f"{name}.toml", trace_of(network.get(name, name.removeprefix("mergekit-"))))
    assert found.findings == () and found.sound
    assert found.log10_claimed == pytest.approx(found.log10_order)


def test_what_a_sound_specification_lacks(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"P": [["0.weight", 0], ["0.bias", 0], ["2.weight", 1]]}))
    found = lint_trace(path, trace_of("mlp"))
    assert found.sound and found.kept == 1
    assert [f.text for f in found.findings] == [
        f"nothing in the specification moves ffn.{i} (S512)." for i in (1, 2)
    ]
    assert all(f.severity == "note" for f in found.findings)


def test_both_spellings_of_git_re_basin_read_the_same(tmp_path: Path) -> None:
    by_group = {"P": [["0.weight", 0], ["0.bias", 0], ["2.weight", 1]]}
    by_tensor = {"0.weight": ["P", None], "0.bias": ["P"], "2.weight": [None, "P"]}
    groups = []
    for i, data in enumerate((by_group, by_tensor, {"perm_to_axes": by_group, "axes_to_perm": by_tensor})):
        (tmp_path / f"{i}.json").write_text(json.dumps(data))
        (tmp_path / f"{i}.txt").write_text(repr(data))
        groups += [read_foreign(tmp_path / f"{i}.{end}", {}).groups for end in ("json", "txt")]
    assert len(set(groups)) == 1


def test_names_of_another_framework(tmp_path: Path) -> None:
    path = tmp_path / "flax.json"
    path.write_text(json.dumps({"Dense_0/kernel": [None, "P"], "Dense_0/bias": ["P"]}))
    found = lint_trace(path, trace_of("mlp"))
    errors = [f for f in found.findings if f.severity == "error"]
    assert [f.text for f in errors] == [
        "none of its 2 tensors is in the network; the first is 'Dense_0/kernel'. Other names?"
    ]


def test_a_misspelt_tensor_is_told_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "near.json"
    path.write_text(json.dumps({"P": [["0.weight", 0], ["0.bias", 0], ["2.wieght", 1]]}))
    found = lint_trace(path, trace_of("mlp"))
    texts = [f.text for f in found.findings if f.kind == "unknown tensor"]
    assert texts == ["the network has no tensor '2.wieght'. Did you mean 2.weight?"]


def test_report_of_files(tmp_path: Path) -> None:
    """What the command prints, for a saved trace: nothing is measured without weights."""
    trace_of("mlp").save(tmp_path / "mlp.json")
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"P": [["0.weight", 0], ["2.weight", 1]], "Q": [["4.weight", 0]]}))
    report = lint_files(path, str(tmp_path / "mlp.json"))
    assert isinstance(report, LintReport) and not report.lint.sound
    text = report.text()
    assert "error: forgotten tensor (1)\n  P 0.bias[0]: has to move with the group" in text
    assert "error: single axis (1)\n  Q 4.weight[0]: permutes one axis of one tensor" in text
    assert text.endswith(
        "on mlp: 2 groups, 0 keep the function, 2 do not. They allow 10^0 of 10^3500 orders."
    )
    summary = report.summary
    assert decode(Summary, json.loads(json.dumps(encode(summary)))) == summary
    assert (summary.kept, summary.groups) == (0, 2) and summary.findings == report.findings


def test_report_of_a_factory_measures(tmp_path: Path) -> None:
    factory = tmp_path / "net.py"
    factory.write_text(
        "import torch\nfrom torch import nn\n"
        "def make():\n    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))\n"
        "    return net, (torch.zeros(2, 4),)\n"
    )
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"P": [["0.weight", 0], ["2.weight", 1]]}))
    report = lint_files(path, f"{factory}:make")
    (finding,) = [f for f in report.findings if f.severity == "error"]
    assert finding.kind == "forgotten tensor" and finding.change is not None and finding.change > 1e-3
    assert "Measured: the output changes by" in report.text()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"P": 1, "P": 2}', "key 'P' appears twice"),
        ("a.json", "[1]", "expected a table of groups or tensors, found a list"),
        ("a.json", '{"P": [["w", "0"]]}', "expected [tensor, axis], found ['w', '0']"),
        ("a.json", '{"P": [["w", -1]]}', "expected [tensor, axis], found ['w', -1]"),
        ("a.py", "__import__('os').system('true')", "a.py: not py: malformed node"),
        ("a.yaml", "a: &x [1]\nb: *x", "it uses aliases (*name); write them out"),
        ("a.yaml", "!!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (
            "a.toml",
            '[[group]]\nname = "g"\nplaces = ["w"]',
            "expected tensor[axis], or tensor[axis] = layout",
        ),
        ("a.toml", 'repeat = {i = 99999999}\n[[group]]\nname = "{i}"\nplaces = ["w[0]"]', "from 1 to 10,000"),
        ("a.toml", '[[group]]\nname = "g"\nplaces = []', "give places"),
        ("a.toml", "a = 1", "not a specification ('group')"),
    ],
)
def test_files_that_are_no_specification(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises((FileError, UsageError)) as caught:
        read_foreign(tmp_path / name, {})
    assert message in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_foreign(tmp_path / "none.json", {})


def test_a_claim_of_absurd_size_is_refused_before_it_is_built(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_text(
        '[[group]]\nname = "g"\nsize = 1000000000000\ncopies = 1000\nplaces = ["0.weight[0] = c u"]\n'
    )
    found = lint_trace(path, trace_of("mlp"))
    assert [f.kind for f in found.findings if f.severity == "error"] == ["shape mismatch"]


def test_a_float64_module_is_left_as_it_was() -> None:
    module, inputs = MADE["batch-norm.json"]()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    measured(lint_trace(BAD / "batch-norm.json", capture(module, inputs)), module, inputs)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
