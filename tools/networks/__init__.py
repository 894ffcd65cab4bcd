"""Small networks on which the laws are tested.

`MODELS[name]()` returns (module in eval mode on the CPU with random weights, example inputs); every one of
them goes through `torch.export.export(module, inputs, strict=False)`. Sizes inside one network differ from
each other where the architecture allows, so that a rule that mixes two axes up is seen.
"""

from networks.handmade import HANDMADE
from networks.recurrent import RECURRENT
from networks.small import SMALL

MODELS = SMALL | HANDMADE | RECURRENT

__all__ = ["HANDMADE", "MODELS", "RECURRENT", "SMALL"]
