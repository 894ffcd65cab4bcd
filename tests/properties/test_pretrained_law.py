"""The law on networks that other people trained: permuted at random, they predict the same on real inputs."""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache

import pytest
import torch
from networks import pretrained as p
from torch import Tensor

import permgraph as pg

pytestmark = p.needs_data

RES8 = [f"res8_firefox_{seed}" for seed in p.RES8_SEEDS]
RESNETS = ["cifar_resnet20", "cifar_resnet_neo_v1_5e4_20"]
NAMES = ["mnist_cnn_a", "mnist_cnn_b", *RESNETS, "cifar_plainnet_neo_v1_5e4_20", *RES8]


@cache
def spec_of(architecture: str) -> pg.PermSpec:
    return pg.infer(pg.trace(p.build(architecture), p.example(architecture)))


def spec(name: str) -> pg.PermSpec:
    """The spec of a file's architecture; it does not depend on the weights."""
    return spec_of(name if "plainnet" in name else name.split("_")[0] + "_" + name.split("_")[1])


def real(name: str) -> list[Tensor]:
    if name.startswith("mnist"):
        return [p.mnist(200)[0]]
    if name.startswith("cifar"):
        return [p.cifar(100)[0]]
    return [p.log_mel(clip, name) for clip in p.keyword_clips(12)]


def places(group: pg.Group, side: str) -> dict[str, int]:
    """Tensor → how many of the group's places it has."""
    return dict(Counter(place.tensor for place in group.places if place.side == side))


def norm(name: str, affine: bool = True) -> list[str]:
    own = [f"{name}.weight", f"{name}.bias"] if affine else []
    return [*own, f"{name}.running_mean", f"{name}.running_var"]


def conv(name: str) -> list[str]:
    return [f"{name}.weight", f"{name}.bias"]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NAMES)
def test_a_random_element_of_all_groups_keeps_every_prediction(name: str) -> None:
    model, plan = p.load(name), pg.plan(spec(name))
    moved = copy.deepcopy(model)
    perms = pg.random_permutations(plan, seed=3)
    moved.load_state_dict(pg.apply(plan, perms, model.state_dict()), strict=True)
    assert sum(not torch.equal(t, moved.state_dict()[k]) for k, t in model.state_dict().items()) > 5
    with torch.no_grad():
        for x in real(name):
            before, after = model.double()(x.double()), moved.double()(x.double())
            assert float((after - before).abs().max()) <= 1e-9 * float(before.abs().max())
            assert torch.equal(before.argmax(1), after.argmax(1))


@pytest.mark.parametrize("name", ["mnist_cnn_a", "cifar_resnet20", NAMES[4], RES8[0]])
def test_the_law_in_float64_and_that_a_tensor_out_of_step_breaks_it(name: str) -> None:
    model, inputs, plan = p.load(name), (real(name)[0][:2],), pg.plan(spec(name))
    for seed in range(2):
        assert pg.verify(model, inputs, spec(name), seed=seed) <= 1e-9
    state = {k: t.double() if t.is_floating_point() else t for k, t in model.state_dict().items()}
    right = pg.apply(plan, pg.random_permutations(plan, seed=1), state)
    model = model.double()
    before = model(inputs[0].double())
    for group in plan.groups:
        place = max(group.places, key=lambda place: state[place.tensor].dim())
        model.load_state_dict(right | {place.tensor: state[place.tensor]})
        change = (model(inputs[0].double()) - before).abs().max() / before.abs().max()
        assert change > 1e-6, (group.name, place.tensor)


def test_res8_has_one_residual_stream_and_an_inner_group_per_block() -> None:
    """conv0, conv2, conv4 and conv6 are added up: one order for all; conv1, conv3, conv5 are free of it."""
    residual, *inner = spec(RES8[0]).groups
    assert (residual.role, residual.size) == ("residual", 45)
    made = {f"conv{i}.weight" for i in (0, 2, 4, 6)} | {t for i in (2, 4, 6) for t in norm(f"bn{i}", False)}
    assert set(places(residual, "permute")) == made
    assert set(places(residual, "un-permute")) == {f"conv{i}.weight" for i in (1, 3, 5)} | {"output.weight"}
    assert [(g.role, g.size) for g in inner] == [("cnn", 45)] * 3
    for group, i in zip(inner, (1, 3, 5), strict=True):
        assert set(places(group, "permute")) == {f"conv{i}.weight", *norm(f"bn{i}", False)}
        assert set(places(group, "un-permute")) == {f"conv{i + 1}.weight"}


def test_zero_padded_shortcuts_split_the_stream_by_where_channels_are_born() -> None:
    """Stage 1's 16 channels are the middle of stage 2's 32, and those the middle of stage 3's 64.

    So 16 channels live through all stages, 16 are born in the second and 32 in the third; the newborn
    are alike, on whichever side of the old ones they were padded.
    """
    found = spec("cifar_resnet20")
    streams = [g for g in found.groups if g.role == "residual"]
    assert [g.size for g in streams] == [16, 16, 32]
    assert [g.size for g in found.groups if g.role == "cnn"] == [16] * 3 + [32] * 3 + [64] * 3
    assert len(found.groups) == 12
    at = [
        {place.tensor: set(place.positions.array().ravel()) for place in g.places if place.axis == 0}
        for g in streams
    ]
    for i in range(9):
        last = f"convs.{i}.conv2.weight"
        want = [
            [set(range(16))],
            [set(range(8, 24)), {*range(8), *range(24, 32)}],
            [set(range(24, 40)), {*range(16, 24), *range(40, 48)}, {*range(16), *range(48, 64)}],
        ][i // 3]
        assert [stream[last] for stream in at if last in stream] == want
    inner = [g for g in found.groups if g.role == "cnn"]
    for i, group in enumerate(inner):
        block = f"convs.{i}"
        assert set(places(group, "permute")) == {*conv(f"{block}.conv1"), *norm(f"{block}.bn1")}
        assert set(places(group, "un-permute")) == {f"{block}.conv2.weight"}


def test_without_shortcuts_every_convolution_is_a_group_of_its_own() -> None:
    groups = spec("cifar_plainnet_neo_v1_5e4_20").groups
    assert [(g.role, g.size) for g in groups] == [("cnn", n) for n in [16] * 7 + [32] * 6 + [64] * 6]
    names = ["conv0", *(f"convs.{i}.conv{j}" for i in range(9) for j in (1, 2))]
    for group, name, following in zip(groups, names, [*names[1:], "fc"], strict=True):
        assert set(places(group, "permute")) == {
            *conv(name),
            *norm(name.replace("conv0", "bn0").replace(".conv", ".bn")),
        }
        assert set(places(group, "un-permute")) == {f"{following}.weight"}


def test_a_flattened_channel_moves_all_its_pixels() -> None:
    groups = spec("mnist_cnn_a").groups
    assert [(g.role, g.size) for g in groups] == [("cnn", 10), ("cnn", 20), ("ffn", 50)]
    (flat,) = (place for place in groups[1].places if place.side == "un-permute")
    assert flat.tensor == "fc1.weight" and flat.positions.shape == (20, 16)
    assert (flat.positions.array().ravel() == torch.arange(320).numpy()).all()


def test_nothing_is_unknown_and_only_input_output_and_taps_are_pinned() -> None:
    for name in ("mnist_cnn_a", "cifar_resnet20", NAMES[4], RES8[0]):
        found = spec(name)
        assert not found.unknown_ops and not found.frozen
        assert {pin.reason for pin in found.pinned} <= {"input", "output", "ordered axis"}
        assert all(tensor.endswith("num_batches_tracked") for tensor in found.unused)
