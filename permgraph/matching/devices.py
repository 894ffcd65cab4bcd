"""Devices: where the two models run."""

from __future__ import annotations

import os

import torch

from permgraph.errors import UsageError


def devices(text: str) -> tuple[torch.device, torch.device]:
    """The devices of A and B: "cpu", "auto" (a GPU where there is one), "cuda:0", or two of these: "cuda:0,cuda:1".

    Raises UsageError for a device that does not exist here.
    """
    parts = text.split(",")
    if len(parts) > 2:
        raise UsageError(f"--device {text}: one device, or one for A and one for B.")
    found = [_device(part.strip()) for part in parts]
    return found[0], found[-1]


def _device(text: str) -> torch.device:
    if text == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        device = torch.device(text)
        if device.type != "meta":
            torch.empty(1, device=device)
            return device
    except (RuntimeError, AssertionError, NotImplementedError):
        pass
    here = ["cpu", "auto", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    raise UsageError(f"--device {text}: not on this machine. There are: {', '.join(here)}.")
