"""Upstream for s3prl (https://github.com/s3prl/s3prl), which runs SUPERB.

    torch.hub.load("FOLDER", "permgraph_encoder", source="local")

For `run_downstream.py -u permgraph_encoder` copy this folder to s3prl/upstream/permgraph_encoder, and add
`from s3prl.upstream.permgraph_encoder.hubconf import *` to s3prl/hub.py. A HuBERT at 16 kHz also runs without this file:
`-u hf_hubert_custom -k FOLDER`, where clips of a batch are padded.
"""

__all__ = ["permgraph_encoder"]

_RATE = 16_000  # Hz of all audio in s3prl


class _UpstreamExpert(_Clips):
    def get_downsample_rates(self, key: str | None = None) -> int:
        """Samples of s3prl from one frame to the next."""
        return round(self.hop * _RATE / self.rate)

    def forward(self, wavs):
        """Clips, (samples,) each, as layers of (clips, frames, width): the shorter ones with zeros after their last frame."""
        every = [self.layers(_resampled(wav, _RATE, self.rate)) for wav in wavs]
        frames = max(layers.shape[1] for layers in every)
        padded = [torch.nn.functional.pad(x, (0, 0, 0, frames - x.shape[1])) for x in every]
        hidden = list(torch.stack(padded, dim=1))
        return {"hidden_states": hidden, "last_hidden_state": hidden[-1]}


def permgraph_encoder(*args, **kwargs):
    return _UpstreamExpert()
