"""The probe of speech recognition: SUPERB's weighted sum of the layers, a bidirectional LSTM, and CTC on characters.

https://arxiv.org/abs/2105.01051; CTC: https://doi.org/10.1145/1143844.1143891. Decoding is greedy, without a language model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from permgraph.evaluation.features import Array, Progress, statistics
from permgraph.evaluation.heads import scale_of
from permgraph.evaluation.transcripts import error_rates

if TYPE_CHECKING:
    from torch import Tensor

# SUPERB takes a projection to 1024, 1024 units per direction, Adam at 1e-4 for 200,000 steps of 32 clips, dropout and
# SpecAugment: too much for two cores without a GPU. This many units take minutes there (clips of a second) to an hour (LibriSpeech's).
UNITS, DEPTH = 96, 2
RATE, BATCH, STEPS, EVERY, CLIP = 2e-3, 8, 2000, 200, 1.0
BLANK = 0  # the number of CTC's blank; a character is its place in the alphabet + 1


@dataclass(frozen=True)
class Clips:
    """Of one split: (frames, layers, width) of every clip, which may lie on disk, and its transcript."""

    frames: Sequence[Array]
    texts: Sequence[str]


@dataclass(frozen=True)
class Transcribed:
    """Hypotheses for the test clips, the word error rate on valid, and what was chosen by it."""

    test: tuple[str, ...]
    valid_wer: float
    choice: str


def greedy(scores: NDArray[Any]) -> list[int]:
    """The best label of every frame, (frames, labels); repetitions become one, then blanks go."""
    best = scores.argmax(axis=1)
    first = np.diff(best, prepend=-1) != 0
    return [int(k) for k in best[first & (best != BLANK)]]


def transcribe(
    alphabet: Sequence[str],
    train: Clips,
    valid: Clips,
    test: Sequence[Array],
    seed: int,
    progress: Progress | None = None,
) -> Transcribed:
    """Adam; the step with the least word error rate on valid (then the least character error rate) is kept; of equal ones the first.

    Every clip of train has the frames that its transcript needs: of another the loss is infinite.
    """
    import torch
    from torch.nn.functional import ctc_loss

    number = {character: k + 1 for k, character in enumerate(alphabet)}
    targets = [torch.tensor([number[c] for c in text]) for text in train.texts]
    draws = torch.Generator().manual_seed(seed)
    probe = _Probe(train.frames, len(alphabet) + 1, seed)
    optimiser = torch.optim.Adam(probe.parameters, lr=RATE)
    best, kept, choice = (float("inf"), float("inf")), probe.state(), ""
    order = torch.randperm(len(targets), generator=draws)
    for step in range(1, STEPS + 1):
        if len(order) < min(BATCH, len(targets)):
            order = torch.randperm(len(targets), generator=draws)
        batch, order = order[:BATCH].tolist(), order[BATCH:]
        optimiser.zero_grad()
        scores, lengths = probe([train.frames[i] for i in batch])
        wanted = [targets[i] for i in batch]
        sizes = torch.tensor([len(text) for text in wanted])
        ctc_loss(scores, torch.cat(wanted), lengths, sizes, BLANK).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(probe.parameters, CLIP)
        optimiser.step()
        if step % EVERY == 0 or step == STEPS:
            rates = error_rates(valid.texts, list(probe.texts(valid.frames, alphabet)))
            if rates < best:
                best, kept = rates, probe.state()
                choice = f"step {step}, layers weighted {probe.shares()}"
                if best == (0, 0):  # no later step is better
                    break
        if progress:
            progress(step, STEPS)
    if progress:
        progress(STEPS, STEPS)
    probe.load(kept)
    return Transcribed(tuple(probe.texts(test, alphabet)), best[0], choice)


class _Probe:
    """Parameters, and clips → log-probabilities of labels. Standardised per layer and channel by the frames of train."""

    def __init__(self, train: Sequence[Array], labels: int, seed: int) -> None:
        import torch
        from torch import nn

        _, layers, width = train[0].shape
        mean, deviation = np.split(statistics(clip.swapaxes(0, 1) for clip in train), 2, axis=1)
        self.mean, self.scale = (torch.from_numpy(x.copy()) for x in (mean, scale_of(mean, deviation)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [width] + [2 * UNITS] * (DEPTH - 1)
            self.recurrent = [(nn.LSTM(w, UNITS), nn.LSTM(w, UNITS)) for w in widths]
            self.head = nn.Linear(2 * UNITS, labels)
        self.mix = nn.Parameter(torch.zeros(layers))
        modules = [*chain(*self.recurrent), self.head]
        self.parameters = [self.mix, *(p for module in modules for p in module.parameters())]

    def __call__(self, clips: Sequence[Array]) -> tuple[Tensor, Tensor]:
        """(frames, clips, labels), and the number of frames of every clip, after which the rows say nothing."""
        import torch
        from torch.nn.utils import rnn

        lengths = torch.tensor([len(clip) for clip in clips])
        frames = torch.from_numpy(np.concatenate(clips)).sub_(self.mean).mul_(self.scale)  # of a copy
        mixed = torch.softmax(self.mix, 0) @ frames
        hidden = rnn.pad_sequence(list(torch.split(mixed, lengths.tolist())))
        for onward, backward in self.recurrent:
            reverse = backward(_reversed(hidden, lengths))[0]
            hidden = torch.cat([onward(hidden)[0], _reversed(reverse, lengths)], -1)
        return torch.log_softmax(self.head(hidden), -1), lengths

    def texts(self, clips: Sequence[Array], alphabet: Sequence[str]) -> Iterator[str]:
        """What greedy decoding reads in every clip, with one blank between words, in their order."""
        import torch

        order = sorted(range(len(clips)), key=lambda i: len(clips[i]))  # of like length, to be run together
        found = [""] * len(clips)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            with torch.inference_mode():
                scores, lengths = self([clips[i] for i in batch])
            for k, (i, length) in enumerate(zip(batch, lengths.tolist(), strict=True)):
                labels = greedy(scores[:length, k].numpy())
                found[i] = " ".join("".join(alphabet[label - 1] for label in labels).split())
        yield from found

    def shares(self) -> str:
        """Of the layers in the weighted sum."""
        return ", ".join(f"{share:.2f}" for share in self.mix.detach().softmax(0).tolist())

    def state(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.parameters]

    def load(self, state: Sequence[Tensor]) -> None:
        for parameter, values in zip(self.parameters, state, strict=True):
            parameter.data.copy_(values)


def _reversed(frames: Tensor, lengths: Tensor) -> Tensor:
    """(frames, clips, width), each clip backwards and its padding left at the end, where no recurrent layer reads it first.

    A packed sequence does the same; its backward pass on a CPU is quadratic in the frames where clips differ in length.
    """
    import torch

    at = lengths - 1 - torch.arange(len(frames))[:, None]
    return frames.gather(0, (at % len(frames))[..., None].expand_as(frames))
