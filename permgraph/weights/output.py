"""A checkpoint written in the layout of another: same shards, same keys, same small files beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from permgraph.atomic_write import refuse_output, replacing, write_file
from permgraph.errors import FileError
from permgraph.frontend.hugging_face import plain_config
from permgraph.weights.checkpoint import Checkpoint, open_checkpoint
from permgraph.weights.links import leaves
from permgraph.weights.record import RECORD, Record
from permgraph.weights.rows import Blocks
from permgraph.weights.safetensors_io import Info, SafetensorsFile, write_safetensors
from permgraph.weights.shard import Shard

# Configuration, tokenizer and preprocessor files. Code, other weights and what a link brings from elsewhere are not handed on.
COPIED = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".yaml", ".md")
COPIED_BYTES = 64 * 2**20


def write_like(
    source: Checkpoint,
    out: Path,
    infos: Mapping[str, Info],
    blocks: Blocks,
    record: Record,
    *,
    force: bool = False,
    inputs: tuple[Path, ...] = (),
    extra: Mapping[str, bytes] | None = None,
    finish: Callable[[Path], None] = lambda written: None,
) -> Path:
    """Write tensors as safetensors to `out`, in the layout of `source`. Returns `out`.

    infos    shape and dtype of every key of `source`
    blocks   gives the numbers of a key in blocks of rows, called once per key
    record   what was done, kept as permgraph.json in a folder and in the metadata of a file
    inputs   further paths that must not be written over
    finish   called with what is written, when nothing is at `out` yet: its error leaves `out` as it was
    extra    further small files of a folder, by name; they win over the source's
    Raises FileError; then `out` is as it was.
    """
    _refuse_suffix(source, out)
    needed = sum(info.nbytes for info in infos.values())
    inputs = (source.path, *inputs)
    with replacing(
        out, folder=source.is_folder, force=force, inputs=inputs, needed=needed, mark=RECORD
    ) as partial:
        if source.is_folder:
            stored = _write_folder(source, partial, infos, blocks, record, extra or {})
            _compare(open_checkpoint(partial, converted=False).infos, stored, out)
        else:
            metadata = {**source.shards[0].metadata, "permgraph": record.text()}
            write_safetensors(partial, infos, blocks, metadata)
            _compare(SafetensorsFile(partial).infos, infos, out)
        finish(partial)
    return out


def refuse_out(source: Checkpoint, out: Path, force: bool = False, inputs: tuple[Path, ...] = ()) -> None:
    """What `write_like` would refuse of `out`, to be asked before the work. Raises FileError."""
    _refuse_suffix(source, out)
    refuse_output(out, folder=source.is_folder, force=force, inputs=(source.path, *inputs), mark=RECORD)


def _refuse_suffix(source: Checkpoint, out: Path) -> None:
    if not source.is_folder and out.suffix != ".safetensors":
        raise FileError(f"{out}: the result of a single file is a .safetensors file; name it so.")


def _write_folder(
    source: Checkpoint,
    folder: Path,
    infos: Mapping[str, Info],
    blocks: Blocks,
    record: Record,
    extra: Mapping[str, bytes],
) -> Mapping[str, Info]:
    """Returns what was written, by stored key."""
    infos, blocks = source.as_stored(infos, blocks)
    names = [_shard_name(shard) for shard in source.shards]
    for shard, name in zip(source.shards, names, strict=True):
        held = {key: infos[key] for key in shard.infos}
        write_safetensors(folder / name, held, blocks, {"format": "pt", **shard.metadata})
    if names != ["model.safetensors"]:
        weight_map = {k: n for s, n in zip(source.shards, names, strict=True) for k in s.infos}
        total = sum(info.nbytes for info in infos.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_file(
            folder / "model.safetensors.index.json",
            json.dumps(index, sort_keys=True, ensure_ascii=False).encode(),
        )
    config = {} if "config.json" in extra else {"config.json": plain_config(source.config)}
    extra = {**{k: v for k, v in config.items() if v}, **extra, RECORD: record.text().encode()}
    for name, data in extra.items():
        write_file(folder / name, data)
    for path in sorted(source.path.iterdir()):
        wanted = path.suffix in COPIED and not path.name.endswith(".index.json") and path.name not in extra
        if wanted and path.is_file() and not leaves(path) and path.stat().st_size <= COPIED_BYTES:
            shutil.copyfile(path, folder / path.name)
    return infos


def _shard_name(shard: Shard) -> str:
    """Name of a shard as safetensors: pytorch_model-1-of-2.bin becomes model-1-of-2.safetensors."""
    stem = shard.path.stem
    return f"{stem.replace('pytorch_model', 'model')}.safetensors"


def _compare(written: Mapping[str, Info], infos: Mapping[str, Info], where: Path) -> None:
    if dict(written) != dict(infos):
        raise FileError(f"{where}: what was written does not read back as announced. Nothing was kept.")
