"""Encoder for X-ARES (https://github.com/jimbozhang/xares). From the folder that holds this one:

    python -m xares.run FOLDER/FILE.py src/tasks/esc50_task.py

X-ARES fills the clips of a batch up with zeros and does not say where they end. For features of the clips alone, set
batch_size_encode = 1 in the configuration of a task.
"""


class PermgraphEncoder(_Clips):
    """(clips, samples) → (clips, frames, output_dim)."""

    def __init__(self) -> None:
        super().__init__()
        self.sampling_rate, self.output_dim = self.rate, self.width
        self.hop_size_in_ms = 1000 * self.hop / self.rate

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        clips = audio if audio.ndim == 2 else audio[None]
        return torch.stack([self.layers(clip)[LAYER] for clip in clips])
