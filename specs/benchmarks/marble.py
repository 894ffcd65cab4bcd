"""Encoder for MARBLE v2 (https://github.com/a43992899/MARBLE). With the folder that holds this one on PYTHONPATH, in the YAML
file of a task:

    model:
      init_args:
        sample_rate: PermgraphRate
        encoder: {class_path: FOLDER.FILE.PermgraphEncoder}

and the same rate under `data`; audio_transforms are not needed. Layers 0 to PermgraphLayers, in_dim: PermgraphWidth.
"""

from marble.core.base_encoder import BaseEncoder


class PermgraphEncoder(BaseEncoder):
    """Frozen, as in all of MARBLE's probes."""

    def __init__(self) -> None:
        super().__init__()
        self.clips = _Clips().requires_grad_(False)
        self.sample_rate = self.clips.rate

    def train(self, mode: bool = True) -> "PermgraphEncoder":
        return super().train(False)  # no dropout below a probe

    def forward(self, input_tensor: torch.Tensor, *args, **kwargs) -> tuple[torch.Tensor, ...]:
        """(clips, samples) or (clips, 1, samples) → a tuple of layers, (clips, frames, width) each."""
        clips = input_tensor.mean(1) if input_tensor.ndim == 3 else input_tensor
        with torch.no_grad():
            return tuple(torch.stack([self.layers(clip) for clip in clips], dim=1))

    def layers(self, clip: torch.Tensor) -> torch.Tensor:
        return self.clips.layers(clip)
