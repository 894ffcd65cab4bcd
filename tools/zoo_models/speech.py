"""Speech networks in the style of torchaudio and of speech toolkits, written from their papers, small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from zoo_models import Made
from zoo_models.handmade import Conformer


class TemporalBlock(nn.Module):
    """A block of Conv-TasNet (Luo and Mesgarani, 2019): depthwise, dilated, with a residual and a skip output."""

    def __init__(self, width: int, hidden: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, hidden, 1),
            nn.PReLU(),
            nn.GroupNorm(1, hidden),
            nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden),
            nn.PReLU(),
            nn.GroupNorm(1, hidden),
        )
        self.residual, self.skip = nn.Conv1d(hidden, width, 1), nn.Conv1d(hidden, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.body(x)
        return x + self.residual(y), self.skip(y)


class ConvTasNet(nn.Module):
    def __init__(self, filters: int = 20, width: int = 12, hidden: int = 18, speakers: int = 2) -> None:
        super().__init__()
        self.speakers = speakers
        self.encoder = nn.Conv1d(1, filters, 16, stride=8, bias=False)
        self.norm, self.inner = nn.GroupNorm(1, filters), nn.Conv1d(filters, width, 1)
        self.blocks = nn.ModuleList(TemporalBlock(width, hidden, 2**i) for i in range(3))
        self.mask = nn.Sequential(nn.PReLU(), nn.Conv1d(width, filters * speakers, 1))
        self.decoder = nn.ConvTranspose1d(filters, 1, 16, stride=8, bias=False)

    def forward(self, wave: Tensor) -> Tensor:
        features = self.encoder(wave)
        x, total = self.inner(self.norm(features)), torch.zeros(())
        for block in self.blocks:
            x, skip = block(x)
            total = total + skip
        masks = self.mask(total).sigmoid().unflatten(1, (self.speakers, -1))
        parts = (masks * features[:, None]).flatten(0, 1)
        return self.decoder(parts).unflatten(0, (-1, self.speakers))  # type: ignore[no-any-return]


class DeepSpeech(nn.Module):
    """Deep Speech 2 (Amodei et al., 2016): convolutions over a spectrogram, then recurrent layers."""

    def __init__(self, mels: int = 16, width: int = 14, classes: int = 9) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 6, (5, 3), (2, 1), (2, 1)), nn.BatchNorm2d(6), nn.Hardtanh(0, 20)
        )
        self.rnn = nn.GRU(6 * mels // 2, width, 2, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).flatten(1, 2).transpose(1, 2)
        return self.out(self.rnn(y)[0]).log_softmax(-1)  # type: ignore[no-any-return]


class SERes2Block(nn.Module):
    """ECAPA-TDNN (Desplanques et al., 2020): channels in steps, each fed the one before, then squeeze and excite."""

    def __init__(self, width: int, scale: int, dilation: int) -> None:
        super().__init__()
        part = width // scale
        self.first, self.last = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)
        self.steps = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(part, part, 3, padding=dilation, dilation=dilation), nn.ReLU(), nn.BatchNorm1d(part)
            )
            for _ in range(scale - 1)
        )
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool1d(1), nn.Conv1d(width, 7, 1), nn.ReLU(), nn.Conv1d(7, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        head, *rest = self.first(x).relu().chunk(len(self.steps) + 1, 1)
        parts = [head]
        for i, (step, part) in enumerate(zip(self.steps, rest, strict=True)):
            parts.append(step(part if i == 0 else part + parts[-1]))
        y = self.last(torch.cat(parts, 1))
        return x + y * self.squeeze(y)  # type: ignore[no-any-return]


class EcapaTdnn(nn.Module):
    def __init__(self, mels: int = 10, width: int = 24, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(mels, width, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(width))
        self.blocks = nn.ModuleList(SERes2Block(width, 4, d) for d in (2, 3))
        self.join = nn.Conv1d(2 * width, 30, 1)
        self.attend = nn.Sequential(
            nn.Conv1d(90, 11, 1), nn.ReLU(), nn.BatchNorm1d(11), nn.Tanh(), nn.Conv1d(11, 30, 1)
        )
        self.norm, self.out = nn.BatchNorm1d(60), nn.Linear(60, classes)

    def forward(self, x: Tensor) -> Tensor:
        x, kept = self.stem(x), []
        for block in self.blocks:
            x = block(x)
            kept.append(x)
        y = self.join(torch.cat(kept, 1)).relu()
        whole = torch.cat([y, *(s.expand_as(y) for s in _statistics(y, torch.ones_like(y) / y.shape[-1]))], 1)
        weights = self.attend(whole).softmax(-1)
        return self.out(self.norm(torch.cat(_statistics(y, weights), 1).squeeze(-1)))  # type: ignore[no-any-return]


def _statistics(x: Tensor, weights: Tensor) -> list[Tensor]:
    """Weighted mean and deviation over time."""
    mean = (x * weights).sum(-1, keepdim=True)
    return [mean, ((x * x * weights).sum(-1, keepdim=True) - mean * mean).clamp(min=1e-6).sqrt()]


class Demucs(nn.Module):
    """Défossez et al., 2019: gated convolutions down, an LSTM, gated convolutions up, with skips."""

    def __init__(self, widths: tuple[int, ...] = (6, 10)) -> None:
        super().__init__()
        self.down, self.up, before = nn.ModuleList(), nn.ModuleList(), 1
        for width in widths:
            body = nn.Sequential(
                nn.Conv1d(before, width, 8, 4), nn.ReLU(), nn.Conv1d(width, 2 * width, 1), nn.GLU(1)
            )
            self.down.append(body)
            back = nn.Sequential(
                nn.Conv1d(width, 2 * width, 3, padding=1), nn.GLU(1), nn.ConvTranspose1d(width, before, 8, 4)
            )
            self.up.insert(0, back)
            before = width
        self.rnn = nn.LSTM(before, before, 2, bidirectional=True)
        self.linear = nn.Linear(2 * before, before)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        x = self.linear(self.rnn(x.permute(2, 0, 1))[0]).permute(1, 2, 0)
        for layer, skip in zip(self.up, reversed(kept), strict=True):
            x = layer(x + skip[..., : x.shape[-1]])
        return x


class WaveNet(nn.Module):
    """van den Oord et al., 2016: gated, dilated, causal, with residual and skip outputs."""

    def __init__(self, width: int = 9, gate: int = 8, skip: int = 7, classes: int = 12) -> None:
        super().__init__()
        self.embed = nn.Conv1d(1, width, 1)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * gate, 2, dilation=2**i) for i in range(3))
        self.mix = nn.ModuleList(nn.Conv1d(gate, width, 1) for _ in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(gate, skip, 1) for _ in range(3))
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.embed(x), 0
        for i, (gates, mix, skip) in enumerate(zip(self.gates, self.mix, self.skips, strict=True)):
            a, b = gates(functional.pad(x, (2**i, 0))).chunk(2, 1)
            y = a.tanh() * b.sigmoid()
            x, total = x + mix(y), total + skip(y)
        return self.out(total)  # type: ignore[no-any-return]


class Branchformer(nn.Module):
    """A layer of E-Branchformer (Kim et al., 2023): attention beside a convolutional gating MLP, merged."""

    def __init__(self, width: int = 12, heads: int = 3, inner: int = 20) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.gate_norm = nn.Linear(width, 2 * inner), nn.LayerNorm(inner)
        self.gate = nn.Conv1d(inner, inner, 7, padding=3, groups=inner)
        self.down = nn.Linear(inner, width)
        self.depth = nn.Conv1d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.merge, self.out = nn.Linear(2 * width, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        one = self.attention(y, y, y, need_weights=False)[0]
        a, b = functional.gelu(self.up(y)).chunk(2, -1)
        two = self.down(a * self.gate(self.gate_norm(b).transpose(1, 2)).transpose(1, 2))
        both = torch.cat([one, two], -1)
        both = both + self.depth(both.transpose(1, 2)).transpose(1, 2)
        return self.out(x + self.merge(both))  # type: ignore[no-any-return]


class Transducer(nn.Module):
    """RNN-T (Graves, 2012): a conformer and an LSTM that predicts, joined at every pair of positions."""

    def __init__(self, width: int = 11) -> None:
        super().__init__()
        self.encoder, self.embed = Conformer(classes=width), nn.Embedding(13, 8)
        self.predict, self.project = nn.LSTM(8, 10, batch_first=True), nn.Linear(10, width)
        self.join = nn.Linear(width, 13)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        told = self.project(self.predict(self.embed(tokens))[0])
        return self.join(torch.tanh(self.encoder(x)[:, :, None] + told[:, None])).log_softmax(-1)  # type: ignore[no-any-return]


class Tacotron(nn.Module):
    """The decoder of Tacotron 2 (Shen et al., 2018): LSTM cells that attend with a memory of where they looked."""

    def __init__(self, text: int = 9, width: int = 10, mels: int = 6) -> None:
        super().__init__()
        self.embed, self.encoder = (
            nn.Embedding(20, text),
            nn.LSTM(text, 7, batch_first=True, bidirectional=True),
        )
        self.first, self.second = nn.LSTMCell(mels + 14, width), nn.LSTMCell(width + 14, width)
        self.query, self.memory = nn.Linear(width, 8, bias=False), nn.Linear(14, 8, bias=False)
        self.look, self.place = nn.Conv1d(2, 5, 3, padding=1, bias=False), nn.Linear(5, 8, bias=False)
        self.energy, self.out = nn.Linear(8, 1), nn.Linear(width + 14, mels)

    def forward(self, tokens: Tensor, frames: Tensor) -> Tensor:
        memory = self.encoder(self.embed(tokens))[0]
        seen = total = memory.new_zeros(memory.shape[:2])
        heard, h, g, made = memory.new_zeros(memory.shape[0], 14), None, None, []
        for frame in frames.unbind(1):
            h = self.first(torch.cat([frame, heard], -1), h)
            place = self.place(self.look(torch.stack([seen, total], 1)).transpose(1, 2))
            scores = self.energy(torch.tanh(self.query(h[0])[:, None] + self.memory(memory) + place))
            seen = scores.squeeze(-1).softmax(-1)
            total, heard = total + seen, (seen[:, None] @ memory).squeeze(1)
            g = self.second(torch.cat([h[0], heard], -1), g)
            made.append(self.out(torch.cat([g[0], heard], -1)))
        return torch.stack(made, 1)


class KeywordSpotter(nn.Module):
    """A convolutional recurrent network that reads the last states of both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(10, 12, 5, 2), nn.BatchNorm1d(12)
        self.rnn, self.out = nn.LSTM(12, 9, batch_first=True, bidirectional=True), nn.Linear(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x)).relu().transpose(1, 2)
        _, (last, _) = self.rnn(y)
        return self.out(last.transpose(0, 1).flatten(1))  # type: ignore[no-any-return]


def _ids(*shape: int) -> Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 13


NETS: dict[str, Callable[[], Made]] = {
    "conv_tasnet": lambda: (ConvTasNet(), (torch.randn(1, 1, 320),), {}),
    "deep_speech": lambda: (DeepSpeech(), (torch.randn(1, 1, 16, 20),), {}),
    "ecapa_tdnn": lambda: (EcapaTdnn(), (torch.randn(1, 10, 30),), {}),
    "demucs": lambda: (Demucs(), (torch.randn(1, 1, 340),), {}),
    "wavenet": lambda: (WaveNet(), (torch.randn(1, 1, 40),), {}),
    "branchformer": lambda: (Branchformer(), (torch.randn(1, 9, 12),), {}),
    "transducer": lambda: (Transducer(), (torch.randn(1, 20, 30), _ids(1, 6)), {}),
    "tacotron": lambda: (Tacotron(), (_ids(1, 7), torch.randn(1, 3, 6)), {}),
    "keyword_spotter": lambda: (KeywordSpotter(), (torch.randn(1, 10, 30),), {}),
}
