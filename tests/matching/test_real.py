"""Matching real, independently trained networks on real inputs (../shared/data), with hand-written groups."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from networks import pretrained as p
from torch import Tensor, nn

from permgraph.inputs.audio import AudioPairs
from permgraph.ir.moments import Layout
from permgraph.ir.permutations import Permutations
from permgraph.matching.accumulation import MomentsBuilder
from permgraph.matching.matchers import match
from tests.matching.planted import plan_of, spec_of

pytestmark = p.needs_data


def watch(model: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """The outputs of these modules after ReLU, as (samples, channels), renewed at each forward."""
    seen: dict[str, Tensor] = {}

    def hook(name: str):
        def keep(module: nn.Module, args: object, result: Tensor) -> None:
            seen[name] = F.relu(result).movedim(1, -1).flatten(0, -2)

        return keep

    for name in names:
        model.get_submodule(name).register_forward_hook(hook(name))
    return seen


def matched(sizes: dict[str, int], models: tuple[nn.Module, nn.Module], batches) -> Permutations:
    plan = plan_of(spec_of(*((name, "cnn", size, None) for name, size in sizes.items())))
    builder = MomentsBuilder({name: Layout((name,), (size,)) for name, size in sizes.items()})
    seen = [watch(model, list(sizes)) for model in models]
    with torch.no_grad():
        for inputs in batches:
            for model, x in zip(models, inputs, strict=True):
                model(x)
            for name in sizes:
                assert builder.update(name, seen[0][name], seen[1][name])
    return match(plan, builder.build())


@pytest.mark.sampled(1)
@pytest.mark.parametrize("other", ["seed441002", "seed794773"])
def test_res8_channels_correlate_once_matched(other):
    """The numbers of the data's README: 0.80 in conv0 and 0.22 in every deeper layer; unmatched far below."""
    names = ("res8_firefox_seed403959", f"res8_firefox_{other}")
    audio = AudioPairs([p.DATA / "kws" / "manifest.csv"], seconds=None, where={"split": "train"}, limit=150)
    batches = ([p.log_mel(a, names[0]), p.log_mel(b, names[1])] for a, b in audio)
    sizes = {f"conv{i}": 45 for i in range(7)}
    rows = matched(sizes, (p.load(names[0]), p.load(names[1])), batches).report["groups"]
    for name, row in rows.items():
        first = name == "conv0"
        assert row["correlation"] >= (0.80 if first else 0.22), name
        assert abs(row["identity"]) <= (0.24 if first else 0.08), name
        assert not row["warnings"] and row["moved"] > 60  # dead channels (up to 25 of 45) may stay


def test_mnist_pair_averages_once_aligned():
    """Plain average 0.785; after matching at least 0.95. Images of the statistics are not those judged."""
    a, b = p.load("mnist_cnn_a"), p.load("mnist_cnn_b")
    images, labels = p.mnist()
    calibration, test = images[::2], (images[1::2], labels[1::2])
    perms = matched({"conv1": 10, "conv2": 20, "fc1": 50}, (a, b), ([x, x] for x in calibration.split(500)))
    one, two, three = (torch.from_numpy(perms[name]) for name in ("conv1", "conv2", "fc1"))
    state_a, old = p.state_of("mnist_cnn_a"), p.state_of("mnist_cnn_b")
    new = {
        "conv1.weight": old["conv1.weight"][one],
        "conv1.bias": old["conv1.bias"][one],
        "conv2.weight": old["conv2.weight"][two][:, one],
        "conv2.bias": old["conv2.bias"][two],
        "fc1.weight": old["fc1.weight"].reshape(50, 20, 16)[:, two].reshape(50, 320)[three],
        "fc1.bias": old["fc1.bias"][three],
        "fc2.weight": old["fc2.weight"][:, three],
        "fc2.bias": old["fc2.bias"],
    }
    found = {}
    for name, state in {
        "aligned b": new,
        "aligned": p.average(state_a, new),
        "plain": p.average(state_a, old),
    }.items():
        model = p.build("mnist_cnn_a")
        model.load_state_dict(state)
        found[name] = p.accuracy(model, test)
    assert found["aligned b"] == p.accuracy(b, test)
    assert found["plain"] < 0.85 and found["aligned"] >= 0.95
