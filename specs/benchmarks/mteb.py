"""Model for MAEB, the audio benchmark of mteb (https://github.com/embeddings-benchmark/mteb). From this folder:

    import mteb
    from FILE import model

    mteb.evaluate(model.load_model(), mteb.get_tasks(["ESC50"]))

An embedding is the mean over the frames of one layer.
"""

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder


class PermgraphEncoder(AbsEncoder):
    def __init__(self, model_name: str = "", revision: str = "", device: str | None = None, **kwargs) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.clips = _Clips().to(self.device)

    def encode(self, inputs, *, task_metadata, hf_split, hf_subset, prompt_type=None, **kwargs) -> np.ndarray:
        means = [self.mean(item) for batch in inputs for item in batch["audio"]]
        return np.stack(means)

    def mean(self, item) -> np.ndarray:
        """Of one clip: {"array": (samples,) or (channels, samples), "sampling_rate": Hz}."""
        clip = torch.as_tensor(np.asarray(item["array"], dtype=np.float32))
        clip = clip.mean(0) if clip.ndim == 2 else clip
        with torch.no_grad():
            layer = self.clips.layers(_resampled(clip, int(item["sampling_rate"]), self.clips.rate))[LAYER]
        return layer.mean(0).cpu().numpy()


model = ModelMeta(
    loader=PermgraphEncoder,
    name="permgraph/PermgraphName",
    revision="PermgraphDigest",
    release_date=None,
    languages=None,
    n_parameters=PermgraphParameters,
    memory_usage_mb=None,
    max_tokens=float("inf"),
    embed_dim=PermgraphWidth,
    license=None,
    open_weights=None,
    public_training_code=None,
    public_training_data=None,
    framework=["PyTorch"],
    similarity_fn_name="cosine",
    use_instructions=False,
    training_datasets=None,
    modalities=["audio"],
)
