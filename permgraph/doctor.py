"""Doctor: what is wrong with this installation, and how to correct it. Changes nothing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from permgraph.errors import PermgraphError

# What each library is asked to do, in a process of its own: a library that crashes is a finding, not the end.
_TRIALS = {
    "torch": "import torch; torch.zeros(2).sum(); print('GPU' if torch.cuda.is_available() else 'CPU only')",
    "transformers": "from transformers import HubertModel",
    "pygraphviz": "import pygraphviz",
    "safetensors": "import safetensors.numpy",
    "scipy": "import scipy.optimize, scipy.sparse.csgraph",
    "soundfile": "import soundfile",
    "soxr": "import soxr",
}
# Why a floor is where it is, where that is not only what was tested.
_FLOORS = {
    "torch": "Before 2.10 a damaged checkpoint could run code while it was read, even with weights_only "
    "(CVE-2026-24747)."
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `advice` says how to correct it, "" when it is well."""

    name: str
    ok: bool
    state: str
    advice: str = ""

    def text(self) -> str:
        line = f"{'ok ' if self.ok else 'BAD'}  {self.name:<13}{self.state}"
        return f"{line}\n     {self.advice}" if self.advice else line

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(tried: bool = False) -> list[Finding]:
    """Python, the version of every library that permgraph needs, and the route to Graphviz.

    tried   import the libraries too, which takes seconds: one that crashes is found only so
    """
    return [_python(), *_libraries(tried), _graphviz()]


def _python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    state = ".".join(map(str, version))
    if version >= (3, 10):
        return Finding("Python", True, state)
    return Finding("Python", False, f"{state}, 3.10 or newer is needed", "Make a new environment.")


def _libraries(tried: bool) -> list[Finding]:
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("permgraph") or ()]
    except metadata.PackageNotFoundError:
        return [Finding("permgraph", False, "is not installed", "pip install . in the folder of its source.")]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [_library(r.name, r.specifier, tried) for r in needed]


def _library(name: str, versions: Any, tried: bool = True) -> Finding:
    """`versions` is a SpecifierSet; a local part such as +cpu does not count."""
    repair = f'pip install "{name}{versions}"'
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, False, "is not installed", repair)
    if not versions.contains(found, prereleases=True):
        return Finding(
            name, False, f"{found}, {versions} is needed", f"{_FLOORS.get(name, '')} {repair}".strip()
        )
    if name in _TRIALS and not tried:
        return Finding(name, True, f"{found}  not imported; --try does")
    said, problem = _try(_TRIALS[name]) if name in _TRIALS else ("", "")
    if not problem:
        return Finding(name, True, f"{found}  {said}".rstrip())
    advice = f"Install it again: {repair}"
    if "torchvision" in problem:  # transformers imports it when it is there
        advice = "Another build of torchvision than of torch. Install a matching one, or pip uninstall torchvision."
    return Finding(name, False, f"{found} does not work: {problem}", advice)


def _try(code: str) -> tuple[str, str]:
    """What the code prints, and the last line of its error; "" when there is none."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", "no answer in 120 s"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    lines = [
        x for x in done.stderr.splitlines() if x.strip() and not x.startswith((" ", "Traceback", "The above"))
    ]
    return "", "; ".join(dict.fromkeys(lines)) or f"it ended with {done.returncode}"


def _graphviz() -> Finding:
    """Draw a graph of two nodes the way `permgraph draw` does."""
    from permgraph.reporting.drawing.graphviz_layout import positions

    try:
        positions(["digraph { a -> b [dir=none] }"])
    except PermgraphError as error:
        repair = "pip install --force-reinstall pygraphviz; all but `draw` works without."
        return Finding("Graphviz", False, str(error), repair)
    return Finding("Graphviz", True, "the Graphviz inside pygraphviz")
