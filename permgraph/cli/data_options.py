"""The options that say what to calibrate on, declared once for every verb that takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from permgraph.cli.options import (
    AllowEmpty,
    AudioArg,
    Batch,
    Clips,
    Data,
    Device,
    Images,
    MaxBad,
    MaxMemory,
    Seconds,
    Stride,
    Text,
    Where,
)
from permgraph.errors import UsageError

if TYPE_CHECKING:
    from permgraph.calibration import Calibration
    from permgraph.matching.shards import Shard


@dataclass(frozen=True)
class DataOptions:
    """What was typed of the data, and of the way in which models run over it."""

    audio: AudioArg = field(default_factory=list)
    data: Data = ""
    text: Text = field(default_factory=list)
    images: Images = field(default_factory=list)
    seconds: Seconds = None
    clips: Clips = 200
    batch: Batch = 4
    max_bad: MaxBad = 0.01
    where: Where = field(default_factory=list)
    allow_empty: AllowEmpty = False
    stride: Stride = 1
    device: Device = "cpu"
    max_memory: MaxMemory = ""

    def calibration(self, shard: Shard | None = None) -> Calibration:
        """What to calibrate on. Raises UsageError for what cannot be read."""
        from permgraph.calibration import Calibration
        from permgraph.matching.memory import parse_size

        return Calibration(
            audio=tuple(self.audio),
            data=self.data,
            text=tuple(self.text),
            images=tuple(self.images),
            seconds=self.seconds,
            clips=self.clips,
            batch=self.batch,
            max_bad=self.max_bad,
            where=dict(_column(text) for text in self.where),
            allow_empty=self.allow_empty,
            stride=self.stride,
            device=self.device,
            max_memory=parse_size(self.max_memory),
            shard=shard,
        )


def takes_data(command: Callable[..., None]) -> Callable[..., None]:
    """A verb whose parameter `data: DataOptions` is replaced by one option for each field, in its place."""
    hints = get_type_hints(command, include_extras=True)
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        alone = parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
        parameters += _options() if hints[parameter.name] is DataOptions else [alone]

    def verb(**given: Any) -> None:
        data = DataOptions(**{option.name: given.pop(option.name) for option in fields(DataOptions)})
        command(data=data, **given)

    verb.__name__, verb.__doc__ = command.__name__, command.__doc__
    verb.__module__ = command.__module__
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return verb


def _options() -> list[inspect.Parameter]:
    hints = get_type_hints(DataOptions, include_extras=True)
    return [
        inspect.Parameter(
            option.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=option.default if option.default_factory is MISSING else option.default_factory(),
            annotation=hints[option.name],
        )
        for option in fields(DataOptions)
    ]


def _column(text: str) -> tuple[str, str]:
    column, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--where {text}: write COLUMN=VALUE, for example split=train.")
    return column, value
