"""The write protocol: a result appears whole or not at all.

Everything is written beside the target, under `OUT.partial-<pid>`, synced, checked, and only then renamed, or exchanged
with the folder that is there. A killed run leaves the old target or the new one, and a partial that the next run sweeps. Where
two names cannot be exchanged (other systems than Linux, some file systems), a run killed between two renames leaves the old one
as `OUT.bak-<pid>`, and the next run puts it back.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from permgraph.errors import FileError


@contextmanager
def replacing(
    out: Path,
    *,
    folder: bool,
    force: bool = False,
    inputs: Sequence[Path] = (),
    needed: int = 0,
    mark: str = "",
) -> Iterator[Path]:
    """Yield a path beside `out` to fill; on leaving, it is synced and renamed to `out`.

    folder   whether `out` is to be a folder (made empty here) or a file (not made)
    force    replace what is there: a regular file, or a folder that holds a file named `mark`
    inputs   paths that are being read and must not be written over
    needed   bytes about to be written; refused beforehand when the disk has fewer
    Raises FileError; whatever goes wrong, the partial is removed and `out` is as it was.
    """
    out = Path(os.path.abspath(out))
    _refuse_place(out, inputs)
    with locked(out, "another run is writing it"):
        _sweep(out)
        _refuse_target(out, folder, force, mark)
        free = shutil.disk_usage(out.parent).free
        if needed > free:
            raise FileError(f"{out}: needs {needed:,} bytes, {free:,} are free. Old output kept.")
        partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
        try:
            if folder:
                partial.mkdir()
            yield partial
            _sync(partial)
            _swap(partial, out)
        except OSError as error:
            raise FileError(
                f"{out}: cannot write: {error.strerror or error}. Nothing was changed."
            ) from error
        finally:
            _remove(partial)


def refuse_output(
    out: Path, *, folder: bool, force: bool = False, inputs: Sequence[Path] = (), mark: str = ""
) -> None:
    """What `replacing` would refuse, to be asked before the work that leads to the output. Raises FileError."""
    out = Path(os.path.abspath(out))
    _refuse_place(out, inputs)
    _refuse_target(out, folder, force, mark)
    if not os.access(out.parent, os.W_OK):
        raise FileError(f"{out}: the folder {out.parent} cannot be written to. Choose another -o.")


def _refuse_place(out: Path, inputs: Sequence[Path]) -> None:
    _refuse_inputs(out, inputs)
    if not out.parent.is_dir():
        raise FileError(f"{out}: the folder {out.parent} does not exist. Make it first.")


def write_file(path: Path, data: bytes) -> None:
    """A new small file, synced."""
    with open(path, "xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _refuse_inputs(out: Path, inputs: Sequence[Path]) -> None:
    target = out.resolve()
    for path in inputs:
        source = path.resolve()
        if target == source:
            raise FileError(f"{out}: output and input are the same. Choose another -o.")
        if source in target.parents and source.is_dir():
            raise FileError(f"{out}: lies inside the input {path}. Choose another -o.")
        if target in source.parents:
            raise FileError(f"{out}: holds the input {path}. Choose another -o.")


def _refuse_target(out: Path, folder: bool, force: bool, mark: str) -> None:
    if out.is_symlink():
        raise FileError(f"{out}: a link; refusing to write through it. Choose another -o.")
    if not out.exists():
        return
    if folder and out.is_dir() and not any(out.iterdir()):
        return
    if not (out.is_dir() if folder else out.is_file()):
        kind = "folder" if folder else "regular file"
        raise FileError(f"{out}: exists and is not a {kind}, which the result would be. Choose another -o.")
    if not force:
        raise FileError(f"{out}: exists. Choose another -o, or pass --force to replace it.")
    if folder and not (out / mark).is_file():
        raise FileError(
            f"{out}: holds no {mark}, so permgraph did not write it. Remove it, or choose another -o."
        )


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` for what is made on the way to it. What killed runs left of theirs is removed."""
    for path in _partials(out, "raw"):
        if not _alive(int(path.name.rpartition("-")[2])):
            _remove(path)
    folder = out.with_name(f"{out.name}.raw-{os.getpid()}")
    try:
        folder.mkdir()
        yield folder
    finally:
        _remove(folder)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


@contextmanager
def locked(out: Path, why: str, kind: str = "lock") -> Iterator[None]:
    """One run at a time: a second one is told `why`. Raises FileError.

    kind  of the lock file: what is locked for a whole run may be written in between
    """
    path = out.with_name(f".{out.name}.{kind}")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        pids = [p.name.rpartition("-")[2] for p in _partials(out)]
        by = f" (pid {', '.join(pids)})" if pids else ""
        raise FileError(f"{out}: locked: {why}{by}. Wait for it.") from error
    except OSError as error:
        raise FileError(f"{out}: cannot write beside it: {error.strerror or error}.") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """A file that one run at a time goes on from, and writes now and then. What a killed run left beside it is removed."""
    with locked(path, "another run resumes from it", "run"):
        with locked(path, "another run is writing it"):
            _sweep(path)
        yield


def sweep(out: Path) -> None:
    """Remove what a killed run left beside a file that is there and is not written again. One that is being written stays."""
    if out.with_name(f".{out.name}.lock").exists():
        with suppress(FileError), locked(out, "another run is writing it"):
            _sweep(out)


def _partials(out: Path, kind: str = "partial") -> list[Path]:
    pattern = re.compile(rf"{re.escape(out.name)}\.{kind}-\d+")
    return sorted(p for p in out.parent.iterdir() if pattern.fullmatch(p.name))


def _sweep(out: Path) -> None:
    """Remove what killed runs left. Under the lock, so every partial of this target is stale."""
    for path in _partials(out):
        _remove(path)
    for path in _partials(out, "bak"):
        if os.path.lexists(out):
            _remove(path)
        else:
            os.rename(path, out)  # killed between the two renames of `_swap`


def _swap(partial: Path, out: Path) -> None:
    """Rename; a folder that is there is exchanged with the new one in one step where the system can."""
    if not (partial.is_dir() and out.is_dir() and any(out.iterdir())):
        os.replace(partial, out)
    elif not _exchange(partial, out):
        old = out.with_name(f"{out.name}.bak-{os.getpid()}")
        os.rename(out, old)
        try:
            os.rename(partial, out)
        except OSError:
            os.rename(old, out)
            raise
        _sync_folder(out.parent)
        _remove(old)
    _sync_folder(out.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step (Linux's renameat2). False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    failed: int = rename(here, os.fsencode(one), here, os.fsencode(other), exchange)
    return failed == 0


def _sync(path: Path) -> None:
    for item in [*path.iterdir()] if path.is_dir() else [path]:
        with open(item, "rb") as stream:
            os.fsync(stream.fileno())
    if path.is_dir():
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
