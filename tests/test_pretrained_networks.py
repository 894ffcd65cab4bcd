"""The modules are the networks the weights were trained for: they reach the measured accuracies."""

from __future__ import annotations

import pytest
import torch
from networks import pretrained as p
from scipy.optimize import linear_sum_assignment

NAMES = [
    "mnist_cnn_a",
    "mnist_cnn_b",
    "cifar_resnet20",
    "cifar_resnet_neo_v1_5e4_20",
    "cifar_plainnet_neo_v1_5e4_20",
    *(f"res8_firefox_{seed}" for seed in p.RES8_SEEDS),
    "onsets_brnn_1",
]


@pytest.mark.sampled(5)
@p.needs_data
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:The tensor attribute")  # of nn.RNN, whose weights torch flattens
def test_loads_every_tensor_and_exports(name: str) -> None:
    model = p.load(name)
    inputs = p.example(name)
    exported = torch.export.export(model, inputs, strict=False).module()
    torch.testing.assert_close(exported(*inputs), model(*inputs))


@p.needs_data
@pytest.mark.parametrize(("name", "measured"), [("mnist_cnn_a", 0.988), ("mnist_cnn_b", 0.972)])
def test_mnist_accuracy(name: str, measured: float) -> None:
    # Measured on all 10000; these are the first 4000, which are the harder part of the test set.
    assert p.accuracy(p.load(name), p.mnist()) == pytest.approx(measured, abs=0.015)


@pytest.mark.sampled(1)
@p.needs_data
@pytest.mark.parametrize(
    ("name", "measured"),
    [
        ("cifar_resnet20", 0.790),
        ("cifar_resnet_neo_v1_5e4_20", 0.818),
        ("cifar_plainnet_neo_v1_5e4_20", 0.776),
    ],
)
def test_cifar_accuracy(name: str, measured: float) -> None:
    # Measured on 1000 of these images; the standard error of a share near 0.8 over 1000 is 0.013.
    assert p.accuracy(p.load(name), p.cifar()) == pytest.approx(measured, abs=0.02)


@p.needs_data
def test_plain_averages_are_worse_than_either_parent() -> None:
    """The gap that matching has to close."""
    digits = p.build("mnist_cnn_a")
    digits.load_state_dict(p.average(p.state_of("mnist_cnn_a"), p.state_of("mnist_cnn_b")))
    assert p.accuracy(digits, p.mnist()) == pytest.approx(0.785, abs=0.02)
    objects = p.build("cifar_resnet20")
    objects.load_state_dict(p.average(p.state_of("cifar_resnet20"), p.state_of("cifar_resnet_neo_v1_5e4_20")))
    assert p.accuracy(objects, p.cifar()) == pytest.approx(0.100, abs=0.02)


@p.needs_data
def test_res8_seeds_see_the_same_sounds_in_another_order() -> None:
    """conv0 of two seeds: nearly uncorrelated unit by unit, correlated above 0.8 once matched.

    There are no labels for the wake words, so this is the evidence that module and log-mel are right.
    """
    maps = []
    for name in ("res8_firefox_seed403959", "res8_firefox_seed441002"):
        model = p.load(name)
        with torch.no_grad():
            seen = [torch.relu(model.conv0(p.log_mel(clip, name))) for clip in p.keyword_clips(150)]
        maps.append(torch.cat([s.transpose(0, 1).flatten(1) for s in seen], dim=1))
    correlation = torch.corrcoef(torch.cat(maps))[:45, 45:].nan_to_num()
    identity = correlation.diagonal().mean().item()
    matched = correlation[linear_sum_assignment(correlation, maximize=True)].mean().item()
    assert 0.05 < identity < 0.26
    assert 0.78 < matched < 0.90
