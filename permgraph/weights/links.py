"""Links: what a folder holds lies in it, or in the hub's folder of blobs; nothing is followed elsewhere."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath

from permgraph.errors import FileError

LONGEST = 255  # bytes of a file name


def inside(folder: Path, name: str) -> Path:
    """`folder/name`, refused when it could lead out of the folder.

    The hub's cache links its snapshots to ../../blobs, which is allowed for a folder laid out like that.
    """
    path = folder / name
    plain = name and name not in (".", "..") and "/" not in name and "\\" not in name and "\0" not in name
    if not plain or PureWindowsPath(name).drive or len(name.encode(errors="replace")) > LONGEST:
        raise FileError(
            f"{folder}: shard name {name[:300]!r} is not a plain file name; refusing to follow it."
        )
    if leaves(path):
        raise FileError(f"{path}: a link that leaves the folder; refusing to follow it.")
    return path


def leaves(path: Path) -> bool:
    """Whether a file is a link to somewhere outside its folder, or the hub's folder of blobs."""
    root = path.parent.resolve()
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    return path.is_symlink() and path.resolve().parent not in (root, blobs)
