"""The CTC probe: decoding by its definition, what is planted is learned, and nothing depends on neighbours or luck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, product

import numpy as np
import pytest
import torch
from torch.nn.functional import ctc_loss

from permgraph.evaluation import ctc
from permgraph.evaluation.transcripts import characters, error_rates, frames_needed

pytest.importorskip("jiwer")

LETTERS, WIDTH, LAYERS = " abcd", 12, 3


def collapsed(path: tuple[int, ...]) -> list[int]:
    """By the definition: one of every run, then no blanks."""
    return [label for label, _ in groupby(path) if label != ctc.BLANK]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dict(UNITS=24, STEPS=150, EVERY=50, RATE=1e-2).items():
        monkeypatch.setattr(ctc, name, value)


def spoken(count: int, seed: int, noise: float = 0.2) -> ctc.Clips:
    """Layer 1 shows the character that is said; the others are noise."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(LETTERS), WIDTH))
    frames, texts = [], []
    for _ in range(count):
        text = " ".join(
            "".join(rng.choice(list(LETTERS[1:]), rng.integers(1, 4))) for _ in range(rng.integers(1, 3))
        )
        said = [centres[LETTERS.index(c)] * on for c in text for on in (1, 1, 0)]
        clip = rng.normal(size=(len(said), LAYERS, WIDTH))
        clip[:, 1] = np.array(said) + noise * rng.normal(size=(len(said), WIDTH))
        frames.append(clip.astype(np.float32))
        texts.append(text)
    return ctc.Clips(frames, texts)


def learned(train: ctc.Clips, seed: int = 0) -> tuple[ctc.Transcribed, float]:
    """With the word error rate on test."""
    test = spoken(30, 2)
    found = ctc.transcribe(characters(train.texts), train, spoken(20, 1), test.frames, seed)
    return found, error_rates(test.texts, found.test)[0]


def test_greedy_decoding_is_the_best_label_of_every_frame_collapsed() -> None:
    for path in product(range(3), repeat=5):
        scores = np.eye(3)[list(path)] + np.random.default_rng(0).random((5, 3)) / 2
        assert ctc.greedy(scores) == collapsed(path)
    assert ctc.greedy(np.zeros((0, 3))) == []


@pytest.mark.parametrize("text", ["a", "ab", "aa", "aab", "abba", "a a"])
def test_frames_needed_are_the_shortest_path_that_reads_as_the_text(text: str) -> None:
    """Counted out, and as torch has it: with one frame less the loss is infinite."""
    alphabet = characters([text])
    wanted = [1 + alphabet.index(c) for c in text]
    for frames in range(1, len(text) + 3):
        paths = product(range(len(alphabet) + 1), repeat=frames)
        possible = any(collapsed(path) == wanted for path in paths)
        scores = torch.zeros(frames, 1, len(alphabet) + 1).log_softmax(-1)
        loss = ctc_loss(scores, torch.tensor([wanted]), [frames], [len(wanted)], ctc.BLANK)
        assert possible == (frames >= frames_needed(text)) == bool(torch.isfinite(loss))


def test_what_frames_tell_is_learned_and_what_they_do_not_is_not(small: None) -> None:
    train = spoken(120, 0)
    found, rate = learned(train)
    assert rate < 0.1 and found.valid_wer < 0.1
    shares = [float(share) for share in found.choice.partition("weighted ")[2].split(", ")]
    assert int(np.argmax(shares)) == 1
    texts = list(train.texts)
    long_enough = [texts[i] for i in sorted(range(len(texts)), key=lambda i: len(texts[i]))]
    order = sorted(range(len(texts)), key=lambda i: len(train.frames[i]))
    shuffled = ctc.Clips([train.frames[i] for i in order], _exchanged(long_enough))
    assert learned(shuffled)[1] > 0.7


def _exchanged(texts: list[str]) -> list[str]:
    """Each text goes to a clip of about its length, which says another."""
    return [text for i in range(0, len(texts), 8) for text in np.roll(texts[i : i + 8], 3).tolist()]


def test_a_seed_is_all_the_chance_there_is(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctc, "STEPS", 20)
    monkeypatch.setattr(ctc, "EVERY", 10)
    state = torch.random.get_rng_state()
    train = spoken(40, 0)
    (one, _), (same, _), (other, _) = (learned(train, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert one == same != other


def test_a_clip_is_read_by_itself(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is run beside it: shorter, longer. A recurrent layer that reads padding backwards would not be."""
    clips = spoken(9, 5)
    probe = ctc._Probe(clips.frames, 6, 0)
    with torch.no_grad():
        together, lengths = probe(clips.frames)
        for k, clip in enumerate(clips.frames):
            (alone, _) = probe([clip])
            torch.testing.assert_close(together[: lengths[k], k], alone[:, 0], atol=1e-5, rtol=0)
        monkeypatch.setattr(ctc, "_reversed", lambda frames, lengths: frames.flip(0))
        shortest = int(lengths.argmin())
        wrong = probe(clips.frames)[0][: lengths[shortest], shortest]
        assert (wrong - probe([clips.frames[shortest]])[0][:, 0]).abs().max() > 1e-3


def test_the_network_is_a_bidirectional_lstm_of_torch(small: None) -> None:
    clips = spoken(9, 5)
    probe = ctc._Probe(clips.frames, 6, 0)
    reference = torch.nn.LSTM(WIDTH, ctc.UNITS, ctc.DEPTH, bidirectional=True)
    theirs = [p for pair in probe.recurrent for lstm in pair for p in lstm.parameters()]
    with torch.no_grad():
        for mine, given in zip(reference.parameters(), theirs, strict=True):
            mine.copy_(given)
        frames = [(torch.from_numpy(clip) - probe.mean) * probe.scale for clip in clips.frames]
        mixed = [clip.mean(dim=1) for clip in frames]  # equal weights, before any step
        packed = torch.nn.utils.rnn.pack_sequence(mixed, enforce_sorted=False)
        hidden, lengths = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0])
        expected = probe.head(hidden).log_softmax(-1)
        found, _ = probe(clips.frames)
        for k, length in enumerate(lengths):
            torch.testing.assert_close(found[:length, k], expected[:length, k], atol=1e-5, rtol=0)


def test_the_step_with_the_least_word_error_rate_on_valid_is_kept(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the least character error rate; of equal steps the first."""
    for name, value in dict(STEPS=6, EVERY=1, RATE=0.1).items():
        monkeypatch.setattr(ctc, name, value)
    seen: list[list[str]] = []

    def scripted(rates: Iterator[tuple[float, float]]) -> Callable[..., tuple[float, float]]:
        def judged(texts: list[str], hypotheses: list[str]) -> tuple[float, float]:
            seen.append(hypotheses)
            return next(rates)

        return judged

    rates = [(1.0, 0.9), (0.5, 0.3), (1.2, 0.1), (0.5, 0.2), (0.5, 0.2), (0.9, 0.0)]
    monkeypatch.setattr(ctc, "error_rates", scripted(iter(rates)))
    valid = spoken(20, 1)
    train = spoken(40, 0)
    found = ctc.transcribe(characters(train.texts), train, valid, valid.frames, 0)
    assert found.choice.startswith("step 4, ") and found.valid_wer == 0.5
    assert list(found.test) == seen[3]  # the parameters of that step
    assert seen[3] not in (seen[2], seen[4], seen[5])

    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(ctc, "error_rates", scripted(iter([(1.0, 1.0), (0.0, 0.0)])))
    found = ctc.transcribe(
        characters(train.texts), train, valid, valid.frames, 0, lambda *done: steps.append(done)
    )
    assert found.choice.startswith("step 2, ") and steps[-1] == (6, 6)  # nothing is better than no error


def test_scales_and_constant_channels_of_layers_do_not_matter(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctc, "STEPS", 1)
    train = spoken(20, 0)
    scale = (2.0 ** np.arange(-6, 6)).astype(np.float32)
    scaled = [clip * scale for clip in train.frames]
    with torch.no_grad():
        one, other = (ctc._Probe(clips, 6, 0)(clips)[0] for clips in (train.frames, scaled))
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
        flat = [clip.copy() for clip in train.frames]
        for clip in flat:
            clip[:, :, 0] = 7.1
        probe = ctc._Probe(flat, 6, 0)
        far = flat[0].copy()
        far[:, :, 0] = 1e6  # a division by a tiny deviation would blow up
        torch.testing.assert_close(probe([far])[0], probe([flat[0]])[0])
