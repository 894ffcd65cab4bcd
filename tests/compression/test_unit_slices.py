"""Laws of slices: the network without some units computes what it computes with these units silent.

What is silenced is spelt out here by the names of the tensors, and does not read our groups.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks.pretrained import CifarNet, needs_data, state_of
from networks.traced import network, spec
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

import permgraph as pg
from permgraph.errors import PlanError, SelectionError
from permgraph.ir.spec import PermSpec
from tests.command import run

State = dict[str, Tensor]
TOKENS = torch.randint(0, 32, (2, 7), generator=torch.Generator().manual_seed(0))


def llama(heads: int = 6, key_heads: int = 3, hidden: int = 20) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=24,
        intermediate_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=4,
    )
    torch.manual_seed(1)
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def groups() -> PermSpec:
    return pg.infer(pg.trace(llama(), {"input_ids": TOKENS}))


def silenced(state: State, rows: dict[str, list[int]]) -> State:
    """With rows (channels that are produced) set to zero."""
    result = {key: tensor.clone() for key, tensor in state.items()}
    for key, numbers in rows.items():
        result[key][numbers] = 0
    return result


def resized(module: nn.Module, state: State) -> nn.Module:
    """With tensors of other sizes; its convolutions, norms and linear layers read their sizes off them."""
    for key, tensor in state.items():
        path, _, leaf = key.rpartition(".")
        owner = module.get_submodule(path)
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(tensor)
        else:
            owner._buffers[leaf] = tensor
    return module


@torch.no_grad()
def output(module: nn.Module, *inputs: Any) -> Tensor:
    found = module(*inputs)
    return getattr(found, "logits", found).double()


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-5 * b.abs().max())


@needs_data
@pytest.mark.slow
def test_a_trained_convolutional_network_without_channels() -> None:
    state = state_of("cifar_resnet20")
    model, image = CifarNet().eval(), torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    groups = pg.infer(pg.trace(model, (image,)))
    of = {g.places[0].tensor: g.name for g in groups.groups if g.role == "cnn"}
    removed = {block: list(range(block, 3 * block + 4)) for block in range(0, 9, 2)}
    norms = {f"convs.{b}.bn1.{leaf}": units for b, units in removed.items() for leaf in ("weight", "bias")}
    model.load_state_dict(silenced(state, norms))
    smaller = pg.remove(groups, {of[f"convs.{b}.conv1.weight"]: units for b, units in removed.items()}, state)
    assert smaller["convs.8.conv2.weight"].shape == (64, 64 - 20, 3, 3)
    found = output(resized(CifarNet().eval(), smaller), image)
    assert close(found, output(model, image))
    model.load_state_dict(state)
    assert not close(found, output(model, image))  # what was removed did matter


def test_a_transformer_without_heads_and_hidden_units(groups: PermSpec) -> None:
    """Grouped queries: a key head goes with its two query heads."""
    state, of = llama().state_dict(), "model.layers.{}.{}.weight".format
    rows = {of(1, "mlp.up_proj"): [0, 5, 19], of(0, "mlp.up_proj"): [1, 2, 3]}
    rows |= {of(0, "self_attn.v_proj"): [4, 5, 6, 7], of(1, "self_attn.v_proj"): [8, 9, 10, 11]}
    units = {"ffn.1": [0, 5, 19], "ffn.0": [3, 1, 2], "heads.0": [1], "heads.1": [2]}
    full, smaller = llama(), llama(4, 2, 17)
    full.load_state_dict(silenced(state, rows))
    smaller.load_state_dict(pg.remove(groups, units, state))
    assert close(output(smaller, TOKENS), output(full, TOKENS))
    smaller.load_state_dict(pg.remove(groups, {**units, "heads.1": [0]}, state))  # another one
    assert not close(output(smaller, TOKENS), output(full, TOKENS))


def test_a_transformer_without_queries(groups: PermSpec) -> None:
    """One of the two query heads of every key head, each time another one."""
    state, of = llama().state_dict(), "model.layers.{}.self_attn.o_proj.weight".format
    full, smaller = llama(), llama(3, 3)
    held = {key: tensor.clone() for key, tensor in state.items()}
    for layer in (0, 1):
        for head in (0, 3, 4):  # the consumer's side silences a whole query head
            held[of(layer)][:, 4 * head : 4 * head + 4] = 0
    full.load_state_dict(held)
    gone = {f"heads.{layer}/queries": [[0], [1], [0]] for layer in (0, 1)}
    smaller.load_state_dict(pg.remove(groups, gone, state))
    assert close(output(smaller, TOKENS), output(full, TOKENS))


class Attention(nn.Module):
    """Two heads of three v channels and two q/k channels."""

    def __init__(self, v: int = 3) -> None:
        super().__init__()
        self.v = v
        self.q, self.k, self.value, self.out = (
            nn.Linear(5, 4),
            nn.Linear(5, 4),
            nn.Linear(5, 2 * v),
            nn.Linear(2 * v, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k = (part(x).unflatten(-1, (2, 2)).transpose(1, 2) for part in (self.q, self.k))
        value = self.value(x).unflatten(-1, (2, self.v)).transpose(1, 2)
        return self.out((torch.softmax(q @ k.mT, dim=-1) @ value).transpose(1, 2).flatten(2))


def test_other_channels_of_every_head() -> None:
    torch.manual_seed(0)
    full, smaller, x = Attention().eval(), Attention(2).eval(), torch.randn(1, 4, 5)
    groups = pg.infer(pg.trace(full, (x,)))
    state = full.state_dict()
    smaller.load_state_dict(pg.remove(groups, {"heads.0/v": [[1], [2]]}, state))
    full.load_state_dict(silenced(state, {"value.weight": [1, 5], "value.bias": [1, 5]}))
    assert close(output(smaller, x), output(full, x))


def test_blocks_and_channels_of_a_grouped_convolution() -> None:
    """Channels within the blocks have coordinates that hold for the rows of their block only."""
    module, inputs = network("grouped_conv")
    state = module.state_dict()
    groups = spec("grouped_conv")
    inner = {"cnn.0/inner": [[0], [2], [3]]}  # of 3 blocks of 4
    full, smaller = (network.__wrapped__("grouped_conv")[0].eval() for _ in range(2))
    rows = [0, 4 + 2, 8 + 3]
    full.load_state_dict(silenced(state, {"layers.0.weight": rows, "layers.0.bias": rows}))
    resized(smaller, pg.remove(groups, inner, state))
    assert close(output(smaller, *inputs), output(full, *inputs))
    shapes = {k: tuple(t.shape) for k, t in pg.remove(groups, {"cnn.0": [1], **inner}, state).items()}
    assert shapes["layers.0.weight"][0] == 2 * 3 and shapes["layers.2.weight"][:2] == (12, 3)


def test_the_json_lists_what_units_own(groups: PermSpec) -> None:
    found = json.loads(json.dumps(pg.slices(groups, "heads,ffn.0")))
    by_name = {group["name"]: group for group in found["groups"]}
    ffn = {one["tensor"]: one for one in by_name["ffn.0"]["slices"]}
    assert ffn["model.layers.0.mlp.down_proj.weight"]["coordinates"] == [[i] for i in range(20)]
    heads = {one["tensor"]: one for one in by_name["heads.1"]["slices"]}
    query = heads["model.layers.1.self_attn.q_proj.weight"]
    assert query["axis"] == 0 and sorted(query["coordinates"][2]) == list(
        range(16, 24)
    )  # two query heads of four
    assert sorted(heads["model.layers.1.self_attn.k_proj.weight"]["coordinates"][2]) == [8, 9, 10, 11]
    values = next(one for one in by_name["heads.1/v"]["slices"] if "o_proj" in one["tensor"])
    assert by_name["heads.1/v"]["copies"] == [3] and np.shape(values["coordinates"]) == (3, 4, 2)
    assert sorted(values["coordinates"][1][3]) == [8 + 3, 12 + 3]  # the same channel in both query heads


class Shuffled(nn.Module):
    """Hidden units in the order of a table."""

    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(5, 6), nn.Linear(6, 3)
        self.register_buffer("order", torch.tensor([2, 0, 1, 5, 4, 3]))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x))[:, self.order])


def test_what_cannot_be_removed_is_refused(groups: PermSpec) -> None:
    state = llama().state_dict()
    for units, said in (
        ({"ffn.0": [20]}, "ffn.0: has units 0 to 19, not 20"),
        ({"ffn.0": [1, 1]}, "a unit is given twice"),
        ({"ffn.0": list(range(20))}, "all 20 units would be removed"),
        ({"heads.0/v": [[0], [1]]}, r"units of shape \(2, 1\); give a list, the same in every copy"),
    ):
        with pytest.raises(PlanError, match=said):
            pg.remove(groups, units, state)
    with pytest.raises(SelectionError, match=r"ffn.7: .* has no such group"):
        pg.remove(groups, {"ffn.7": [0]}, state)
    module = Shuffled()
    shuffled, tables = module.state_dict(), pg.infer(pg.trace(module, (torch.randn(2, 5),)))
    with pytest.raises(PlanError, match="an integer table that the groups depend on"):
        pg.remove(tables, {tables.groups[0].name: [0]}, shuffled)
    assert pg.remove(tables, {tables.groups[0].name: [0]}, shuffled, allow_tables=True)
    ragged = pg.infer(pg.trace(*network("grouped_conv")))
    with pytest.raises(PlanError, match="all 3 units would be removed"):
        pg.remove(ragged, {"cnn.0": [0, 1, 2]}, network("grouped_conv")[0].state_dict())


@pytest.mark.slow
def test_the_command_writes_the_same(
    groups: PermSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pg.trace(llama(), {"input_ids": TOKENS}).save("permgraph.trace.json")
    run("slices", "-g", "ffn.0")
    assert "3 slices of 1 groups" in capsys.readouterr().err
    assert json.loads(Path("slices.json").read_text()) == {
        **pg.slices(groups, "ffn.0"),
        "model": "LlamaForCausalLM",
    }
    run("slices", "-g", "ffn.9", "-o", "other.json", code=2)
    assert not Path("other.json").exists()
    run("slices", code=3)  # it exists
