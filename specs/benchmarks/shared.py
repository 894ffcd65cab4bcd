import json
import math
from pathlib import Path

import torch
from transformers import AutoModel

MODEL = Path(__file__).resolve().parent
LAYER = -1  # where one layer is taken: -1 is the last, 0 what enters the first transformer layer


class _Clips(torch.nn.Module):
    """The encoder of this folder, one clip at a time and unpadded: beside zeros a group norm gives other features.

    rate   Hz
    hop    samples from one frame to the next
    width  of a frame
    """

    def __init__(self) -> None:
        super().__init__()
        settings = json.loads((MODEL / "preprocessor_config.json").read_text(encoding="utf-8"))
        self.rate, self.normalize = settings["sampling_rate"], settings["do_normalize"]
        self.model = AutoModel.from_pretrained(str(MODEL)).eval()
        config = self.model.config
        self.hop, self.width = math.prod(config.conv_stride), config.hidden_size
        self.shortest, step = 1, 1  # samples of one frame
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            self.shortest, step = self.shortest + (kernel - 1) * step, step * stride

    def layers(self, clip: torch.Tensor) -> torch.Tensor:
        """(layers, frames, width) of one clip at `rate`, (samples,): whole, or in pieces of PermgraphLongest s, one after another.

        One shorter than a frame gets zeros at its end.
        """
        step, shortest = round(PermgraphLongest * self.rate), round(PermgraphShortest * self.rate)
        parts = [part for part in clip.split(step) if len(part) >= max(shortest, self.shortest)]
        return torch.cat([self._piece(part) for part in parts or [clip]], dim=1)

    def _piece(self, clip: torch.Tensor) -> torch.Tensor:
        clip = clip.to(self.model.device, torch.float32)
        if self.normalize:
            wide = clip.double()
            clip = ((wide - wide.mean()) / (wide.var(unbiased=False) + 1e-7).sqrt()).float()
        clip = torch.nn.functional.pad(clip, (0, max(0, self.shortest - len(clip))))
        out = self.model(clip[None], output_hidden_states=True)
        *hidden, last = out.hidden_states
        if out.last_hidden_state.shape == last.shape:  # no adapter after the encoder changes the frame rate
            last = out.last_hidden_state
        return torch.stack([*hidden, last])[:, 0]


def _resampled(clip: torch.Tensor, rate: int, wanted: int) -> torch.Tensor:
    if rate == wanted:
        return clip
    from torchaudio.functional import resample

    return resample(clip, rate, wanted)
