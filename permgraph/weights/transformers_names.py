"""transformers' own conversion: how the keys of a model folder become the tensors of its module, and back.

Since version 5 the saved keys of some models are not the module's: modules were renamed (ViT, AST), weights fused (the
experts of Mixtral). `from_pretrained` and `save_pretrained` convert with one table of transforms per model; that table is
used here as it stands, in both directions. No code of the folder is run.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from permgraph.errors import FileError, TraceError
from permgraph.ir.names import canonical
from permgraph.weights.conversion import Conversion, Unit
from permgraph.weights.safetensors_io import Info


def conversion_of(folder: Path, config: Mapping[str, Any], infos: Mapping[str, Info]) -> Conversion | None:
    """How the stored keys of a folder become its model's tensors; None when they are its tensors.

    Raises FileError when transformers' conversion of these tensors cannot be undone.
    """
    if not _is_of_transformers(config):
        return None
    from permgraph.frontend.hugging_face import saved_model

    try:
        model = saved_model(folder / "config.json")
    except (TraceError, ImportError):
        return None  # of an architecture that cannot be built: whoever needs it says so
    units = _units(model, infos, str(folder))
    if all(unit.movement is None and unit.stored == unit.names for unit in units):
        return None
    return Conversion(units)


def _is_of_transformers(config: Mapping[str, Any]) -> bool:
    """Whether transformers may know this model. It is not imported for others: that takes seconds."""
    kind, spec = config.get("model_type"), find_spec("transformers")
    if spec is None or not isinstance(kind, str) or not kind.replace("-", "_").isidentifier():
        return False
    models = Path(next(iter(spec.submodule_search_locations or ()))) / "models"
    return bool(config.get("architectures")) or (models / kind.replace("-", "_")).is_dir()


def _units(model: Any, infos: Mapping[str, Info], where: str) -> list[Unit]:
    """What `from_pretrained` collects, key by key in its order."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    of_pattern = {pattern: c for c in converters for pattern in c.source_patterns}
    held, prefix = model.state_dict(keep_vars=True), model.base_model_prefix
    rows: list[tuple[str, str, str, str | None]] = []
    for key in sorted(infos, key=dot_natural_key):
        renamed, _ = rename_source_key(key, renamings, converters)
        name, pattern = rename_source_key(key, renamings, converters, prefix, held)
        if name not in held and key in held:
            renamed = key
            name, pattern = rename_source_key(key, [], [], prefix, held)
        rows.append((key, renamed, name, pattern))
    if len({_lead(renamed, name) for _, renamed, name, _ in rows if name in held}) > 1:
        rows = [(key, name if name in held else renamed, name, p) for key, renamed, name, p in rows]
    plain: dict[str, str] = {}  # the name in the view → stored key
    fused: dict[str, _Fused] = {}
    for key, renamed, name, pattern in rows:
        if pattern is not None and name in held:
            fused.setdefault(name, _Fused(model, of_pattern[pattern], name, renamed, where)).add(key, pattern)
            continue
        if pattern is not None or renamed in plain or canonical(renamed) == canonical(key):
            renamed = key  # not the model's, a second copy, or another spelling of the same name
        plain[renamed] = key
    units = [Unit((key,), (name,)) for name, key in plain.items()]
    return [*units, *(f.unit(infos) for f in fused.values())]


def _lead(renamed: str, name: str) -> str:
    """What the files have before the model's names; "-" and what they lack. One for all keys, it is a prefix, and stays."""
    if renamed.endswith(name):
        return renamed.removesuffix(name)
    return f"-{name.removesuffix(renamed)}"


@dataclass
class _Fused:
    """One application of a converter of transformers. `keys` go in, in this order, each under its pattern.

    name     what the first of them becomes in the model
    renamed  the same with the prefix that the files have before the model's names
    """

    model: Any
    converter: Any
    name: str
    renamed: str
    where: str
    keys: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    checked: bool = False

    def add(self, key: str, pattern: str) -> None:
        self.keys.append(key)
        self.patterns.append(pattern)

    def unit(self, infos: Mapping[str, Info]) -> Unit:
        if len({infos[key].dtype for key in self.keys}) > 1:
            raise FileError(
                f"{self.where}: {', '.join(self.keys[:3])}, … are parts of {self.name} in different dtypes."
            )
        empty = [torch.empty(infos[k].shape, dtype=infos[k].dtype.torch, device="meta") for k in self.keys]
        self.names = list(self._convert(empty))
        return Unit(tuple(self.keys), tuple(map(self._as_filed, self.names)), self)

    def _as_filed(self, name: str) -> str:
        """A name of the model with the prefix of the files: a base model's with that of a head, or the reverse."""
        if self.renamed.endswith(self.name):
            return self.renamed.removesuffix(self.name) + name
        return name.removeprefix(self.name.removesuffix(self.renamed))

    def forward(self, stored: list[torch.Tensor]) -> list[torch.Tensor]:
        return list(self._convert(stored).values())

    def backward(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Undone with transformers' reverse of the converter, after a check that it is one."""
        made = self._revert(tensors)
        if not self.checked:
            self._check([tuple(t.shape) for t in made])
        return made

    def _convert(self, stored: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        converter = copy.deepcopy(self.converter)
        for pattern, tensor in zip(self.patterns, stored, strict=True):
            converter.collected_tensors[pattern].append(tensor)
        try:
            return _single(converter.convert(self.name, model=self.model, config=self.model.config))
        except Exception as error:  # whatever an operation of transformers raises
            raise self._failed(f"fails: {error}") from error

    def _revert(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        from transformers.core_model_loading import dot_natural_key

        reverse, renamed = self.converter.reverse_transform(), ""
        for name, tensor in zip(self.names, tensors, strict=True):
            renamed, pattern = reverse.rename_source_key(name)
            reverse.collected_tensors[pattern].append(tensor)
        try:
            made = _single(reverse.convert(renamed, model=self.model, config=self.model.config))
        except Exception as error:
            raise self._failed(f"cannot be undone: {error}") from error
        waiting: dict[str | None, list[torch.Tensor]] = {}
        for name in sorted(made, key=dot_natural_key):
            pattern = self.patterns[0] if len(made) == 1 else self.converter.rename_source_key(name)[1]
            waiting.setdefault(pattern, []).append(made[name])
        if {p: len(t) for p, t in waiting.items()} != {p: self.patterns.count(p) for p in self.patterns}:
            raise self._failed("gives other tensors back")
        return [waiting[pattern].pop(0) for pattern in self.patterns]

    def _check(self, shapes: list[tuple[int, ...]]) -> None:
        """Number every stored value: the numbers have to come back, each to its place. Raises FileError."""
        numbers, start = [], 0
        for shape in shapes:
            count = int(torch.Size(shape).numel())
            numbers.append(torch.arange(start, start + count, dtype=torch.int32).reshape(shape))
            start += count
        there = list(self._convert([n.clone() for n in numbers]).values())
        back = self._revert(there) if sum(t.numel() for t in there) == start else []
        if not back or not all(torch.equal(x, y) for x, y in zip(numbers, back, strict=True)):
            raise self._failed("cannot be undone: values do not come back where they were")
        self.checked = True

    def _failed(self, what: str) -> FileError:
        return FileError(
            f"{self.where}: transformers' conversion of {', '.join(self.keys[:3])} into {self.name} {what}."
        )


def _single(made: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: t[0] if isinstance(t, list) else t for name, t in made.items()}
