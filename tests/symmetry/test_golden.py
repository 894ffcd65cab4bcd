"""Golden specs: what inference finds on known networks does not change unseen (tools/golden.py writes them)."""

import json

import pytest
from golden import GOLDEN, golden, networks, text_of, trace_of

LARGE = (
    "hubert-xlarge",
    "hubert-large",
    "mert-v1-330m",
    "w2v-bert",
    "wav2vec2-large",
    "whisper-medium",
    "whisper-large",
)
SAME = (
    "mert",
    "mert-v1-95m",
    "wav2vec2",
    "unispeech-sat",
    "whisper-base",
    "whisper-small",
    "data2vec-audio",
    "sew",
    "wavlm",
)


def cost(name: str) -> object:
    slow = name.startswith(LARGE) or name in SAME
    return pytest.param(name, marks=pytest.mark.slow) if slow else name


@pytest.mark.parametrize("name", [cost(n) for n in networks()])
def test_a_network_has_the_groups_it_had(name: str) -> None:
    known = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    found = text_of(golden(trace_of(name)))
    assert json.loads(found) == json.loads(known), f"if this is meant: python tools/golden.py {name}"


def test_every_golden_file_is_of_a_network_we_have() -> None:
    assert {p.stem for p in GOLDEN.glob("*.json")} == set(networks())
