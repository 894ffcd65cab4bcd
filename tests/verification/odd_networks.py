"""Networks at which a function check used to give a false alarm, or could: chance, tensors of every kind and place."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from networks.randomise import noise
from torch import Tensor, nn

Network = tuple[nn.Module, tuple[Any, ...]]
X = (noise(5, 4),)


class Between(nn.Module):
    """A hidden layer of 6 units, something done to them, and two layers after."""

    def __init__(self, middle: Callable[[Any, Tensor], Tensor], **tensors: Any) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 6), nn.Linear(6, 7), nn.Linear(7, 3)
        self.middle = middle
        for name, value in tensors.items():
            if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(self.middle(self, self.first(x)))))  # type: ignore[no-any-return]


class VAE(nn.Module):
    def __init__(self, sample: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self.mean, self.log_var = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 2)
        self.decoder, self.out = nn.Linear(2, 7), nn.Linear(7, 4)
        self.sample = sample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.relu(self.encoder(x))
        mean, std = self.mean(h), torch.exp(self.log_var(h) / 2)
        return self.out(torch.relu(self.decoder(self.sample(mean, std)))), mean, std


class StyleNoise(nn.Module):
    """A picture of noise, one number per pixel, scaled per channel and added (StyleGAN)."""

    def __init__(self, per_channel: bool) -> None:
        super().__init__()
        self.first, self.second, self.last = (
            nn.Conv2d(2, 6, 3, padding=1),
            nn.Conv2d(6, 5, 1),
            nn.Conv2d(5, 2, 1),
        )
        self.strength = nn.Parameter(torch.zeros(6, 1, 1))
        self.per_channel = per_channel

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        shape = h.shape if self.per_channel else (h.shape[0], 1, *h.shape[2:])
        h = self.second(F.leaky_relu(h + self.strength * torch.randn(shape, device=h.device)))
        return self.last(F.leaky_relu(h))  # type: ignore[no-any-return]


class LogMel(nn.Module):
    """Power, a filter bank that holds zeros, a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.eye(17, 8))
        self.out = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.out((x.abs() @ self.bank + 1e-6).log())  # type: ignore[no-any-return]


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(11, 4), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.embed(ids))))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.rnn, self.out = kind(4, 6, batch_first=True), nn.Linear(6, 3)  # type: ignore[call-arg]

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0])  # type: ignore[no-any-return]


class MaxNorm(nn.Linear):
    """Writes its own weights before it uses them (EEGNet)."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        return super().forward(x)


class Held(nn.Module):
    """Tensors where no `state_dict` has them: attributes, lists, dicts, a list of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.scale = torch.tensor(1.7)
        self.shift = [torch.tensor(0.3), {"more": torch.tensor(0.1)}]
        self.kernel = torch.full((1, 1, 3), 0.5)
        self.own = [self.first.weight, self.first.bias]

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(F.linear(x, *self.own)) * self.scale + self.shift[0] + self.shift[1]["more"]  # type: ignore[index]
        return F.conv1d(self.last(h).unsqueeze(1), self.kernel, padding=1).squeeze(1)


class Unregistered(nn.Module):
    """Modules in a plain list, which is none of `modules()`: OneFormer holds convolutions so."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.heads = [{"out": nn.Sequential(nn.Conv1d(1, 1, 3, padding=1), nn.BatchNorm1d(1))}]

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.last(torch.relu(self.first(x)))
        return self.heads[0]["out"].eval()(h.unsqueeze(1)).squeeze(1)  # type: ignore[no-any-return]


class Memory(nn.Module):
    """Writes to a buffer while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("last_output", torch.zeros(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.first(x)))
        self.calls += 1  # type: ignore[assignment]
        self.last_output = y
        return y / self.calls


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 6, dtype=torch.complex64))
        self.last = nn.Parameter(torch.randn(6, 3, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.view_as_real((x.to(torch.complex64) @ self.first) @ self.last)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.mid, self.down = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.again = self.mid

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.again(torch.relu(self.mid(torch.relu(self.up(x)))))))  # type: ignore[no-any-return]


class Cast(nn.Module):
    """Computes in bfloat16 and float32 whatever its weights are."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        h = F.softmax(self.first(x).to(self.dtype), -1, dtype=self.dtype).type_as(x)
        return self.last(h).float()  # type: ignore[no-any-return]


class Lock(nn.Module):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.generator = (i for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))  # type: ignore[no-any-return]


class Minus(nn.Module):
    """Logits that are -inf where they may not be chosen, as many samplers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(torch.relu(self.first(x)))
        return y.masked_fill(torch.tensor([False, True, False]), -torch.inf)


class Modern(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))  # type: ignore[no-any-return]


class Masked(nn.Module):
    """Drops tokens at random, by sorting noise (ViT-MAE)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        order = torch.argsort(torch.rand(x.shape[:2], device=x.device), dim=1)
        kept = torch.gather(x, 1, order[:, :3, None].expand(-1, -1, x.shape[-1]))
        return self.last(torch.relu(self.first(kept))), order


def vit_mae() -> Network:
    import transformers

    config = transformers.ViTMAEConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=20,
        image_size=16,
        patch_size=4,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=18,
    )
    return transformers.ViTMAEForPreTraining(config), (noise(1, 3, 16, 16),)


def between(middle: Callable[[Any, Tensor], Tensor], **tensors: Any) -> Callable[[], Network]:
    return lambda: (Between(middle, **tensors), X)


def normal(mean: Tensor, std: Tensor) -> Tensor:
    return torch.distributions.Normal(mean, std, validate_args=False).rsample()


RANDOM: dict[str, Callable[[], Network]] = {
    "vae randn_like": lambda: (VAE(lambda mean, std: mean + std * torch.randn_like(std)), X),
    "vae rsample": lambda: (VAE(normal), X),
    "vae normal of tensors": lambda: (VAE(torch.normal), X),
    "vit_mae": vit_mae,
    "random tokens": lambda: (Masked(), (noise(2, 5, 4),)),
    "noise per pixel": lambda: (StyleNoise(per_channel=False), (noise(1, 2, 6, 6),)),
    "noise per channel": lambda: (StyleNoise(per_channel=True), (noise(1, 2, 6, 6),)),
    "dropout in eval": between(lambda m, h: F.dropout(torch.relu(h), 0.5, training=True)),
    "alpha dropout in eval": between(lambda m, h: F.alpha_dropout(torch.relu(h), 0.5, training=True)),
    "feature dropout in eval": between(
        lambda m, h: F.dropout1d(h[..., None].expand(-1, -1, 3), 0.5, training=True).mean(-1)
    ),
    "gumbel softmax": lambda: (
        nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), Function(lambda h: F.gumbel_softmax(h, dim=-1))
        ),
        X,
    ),
    "hard gumbel softmax": lambda: (
        nn.Sequential(
            nn.Linear(4, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
            Function(lambda h: F.gumbel_softmax(h, dim=-1, hard=True) * h),
        ),
        X,
    ),
    "gumbel noise": between(lambda m, h: h - torch.log(-torch.log(torch.rand_like(h)))),
    "uniform in place": between(lambda m, h: h + torch.empty_like(h).uniform_(-1, 1)),
    "normal in place": between(lambda m, h: h * torch.empty_like(h).normal_(1.0, 0.1)),
    "exponential in place": between(lambda m, h: h * torch.empty_like(h).exponential_(2.0)),
    "bernoulli in place": between(lambda m, h: h * torch.empty_like(h).bernoulli_(0.5)),
    "bernoulli of units": between(lambda m, h: torch.bernoulli(torch.sigmoid(h))),
    "stochastic depth": between(lambda m, h: h + torch.relu(h) * (torch.rand(h.shape[0], 1) < 0.5)),
    "randperm of samples": between(lambda m, h: h[torch.randperm(5)]),
    "randint of samples": between(lambda m, h: h[torch.randint(0, 5, (5,))]),
    "multinomial": between(lambda m, h: h[torch.multinomial(torch.ones(5), 3)]),
    "poisson": between(lambda m, h: torch.poisson(torch.relu(h) + 1)),
    "python's random": between(lambda m, h: torch.relu(h) * random.random()),
    "numpy's random": between(lambda m, h: torch.relu(h) * float(np.random.rand())),
    "leaky slopes": between(lambda m, h: F.rrelu(h, training=True)),
}

ODD: dict[str, Callable[[], Network]] = {
    "log mel": lambda: (
        LogMel(),
        (noise(4, 17) * (torch.arange(17) < 16) + 50.0 * (torch.arange(17) == 16),),
    ),
    "square root of a buffer": between(
        lambda m, h: h / m.var.sqrt(), var=torch.tensor([0.0, 1e-6, 1e-3, 0.1, 1.0, 4.0]) + 1e-9
    ),
    "logarithm of a parameter": between(
        lambda m, h: h * m.scale.log(), scale=nn.Parameter(torch.full((6,), 2.0))
    ),
    "arc cosine of a buffer": between(
        lambda m, h: h * m.angle.acos(), angle=0.999 * torch.tensor([1.0, -1, 1, -1, 1, -1])
    ),
    "batch norm": lambda: (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)), X),
    "minus infinity in a buffer": between(
        lambda m, h: torch.softmax(h @ h.T + m.mask, -1) @ h, mask=torch.full((5, 5), -torch.inf).triu(1)
    ),
    "minus infinity in the output": lambda: (Minus(), X),
    "integer order": between(
        lambda m, h: h + torch.relu(h)[:, m.order], order=torch.tensor([2, 0, 1, 4, 5, 3])
    ),
    "keep mask": between(lambda m, h: torch.relu(h) * m.keep, keep=torch.tensor([1, 1, 1, 0, 1, 1]).bool()),
    "a buffer that is written": lambda: (Memory(), X),
    "complex weights": lambda: (Complex(), X),
    "bfloat16 weights": lambda: (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).bfloat16(),
        (X[0].bfloat16(),),
    ),
    "float16 inside": lambda: (Cast(torch.float16), X),
    "float32 inside": lambda: (Cast(torch.float32), X),
    "tied modules": lambda: (Tied(), X),
    "lstm": lambda: (Recurrent(nn.LSTM), (noise(2, 5, 4),)),
    "gru": lambda: (Recurrent(nn.GRU), (noise(2, 5, 4),)),
    "token ids": lambda: (Tokens(), (torch.zeros(2, 5, dtype=torch.int64),)),
    "not to be copied": lambda: (Lock(), X),
    "modules in a plain list": lambda: (Unregistered(), X),
    "parametrised": lambda: (Modern(), X),
}


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


# Networks whose units the spec holds in place, or that cannot be captured; a plain network gives the groups.
TWINS: dict[str, tuple[Callable[[], Network], Callable[[], Network]]] = {
    name: (make, between(lambda m, h: torch.relu(h)))
    for name, make in RANDOM.items()
    if isinstance(make()[0], Between)
}
TWINS["weights that are written"] = (
    lambda: (nn.Sequential(MaxNorm(4, 6), nn.ReLU(), nn.Linear(6, 3)), X),
    lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), X),
)
TWINS["noise per channel"] = (
    RANDOM["noise per channel"],
    lambda: (StyleNoise(per_channel=False), (noise(1, 2, 6, 6),)),
)
TWINS["held beside the state"] = (lambda: (Held(), X), lambda: (Lock(), X))
