"""Memory: what a calibration and what follows it will need, told before it starts, beside what the machine has left."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from permgraph.errors import MatchError, UsageError
from permgraph.ir.plan import Plan
from permgraph.ir.spec import Probe
from permgraph.ir.trace import Node, Trace
from permgraph.matching.accumulation import NARROW
from permgraph.matching.probes import choose_probes, families, layout_of

WIDE, SINGLE = 8, 4  # bytes of a float64, of a float32
SAVING = (
    4  # a checkpoint is written from: the moments so far, those of the last batches, their sum, and its bytes
)
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes that a calibration needs beside what the process already holds, and what comes after it.

    models       the weights of A and B; 0 where nothing is calibrated
    moments      sums, squares and products of the units of all probes
    activations  of a batch, where its shape is known before the start; else None
    largest      the probe whose moments are largest
    waiting      products of the last samples, in float32 before they go to the moments
    available    bytes that this process may still take; None where the system does not say
    check        the function check, while the moments are kept; 0 where none is made
    repair       --repair: three models, and what is summed over a batch; 0 without it
    """

    models: int
    moments: int
    activations: int | None
    largest: str
    available: int | None
    waiting: int = 0
    check: int = 0
    repair: int = 0

    @property
    def total(self) -> int:
        """The most that is held at any time: one stage comes after the other."""
        return max((count for _, count, _ in self._stages()), default=0)

    @property
    def calibration(self) -> int:
        """Of one pass over the data."""
        return self.models + self.moments + self.waiting + (self.activations or 0)

    @property
    def scarce(self) -> bool:
        """Whether it is estimated to need more than is available."""
        return self.available is not None and self.total > self.available

    def _stages(self) -> list[tuple[str, int, str]]:
        """What is done, the bytes it needs, and what needs less."""
        fewer = "A smaller --batch, or --max-memory, needs less"
        stages = [
            ("calibration", self.calibration, fewer),
            ("the function check", self.check, "--no-check leaves the function check out"),
            ("--repair", self.repair, "A smaller --batch, or no --repair, needs less"),
        ]
        return [stage for stage in stages if stage[1]]

    def text(self) -> str:
        """One sentence."""
        held = "" if self.available is None else f"; {size(self.available)} are available"
        (first, count, _), *rest = self._stages()
        parts = f" ({self.parts})" if self.models or self.moments else ""
        more = "".join(f", {name} {size(count)}" for name, count, _ in rest)
        return f"{first[0].upper()}{first[1:]} needs about {size(count)} of memory{parts}{more}{held}."

    @property
    def parts(self) -> str:
        """What the calibration needs it for, in words."""
        batch = (
            "beside the activations of a batch"
            if self.activations is None
            else f"activations of a batch {size(self.activations)}"
        )
        return f"both models {size(self.models)}, moments {size(self.moments + self.waiting)}, {batch}"

    def _warning(self) -> str:
        """What to do where it may not fit; "" where it does."""
        if not self.scarce:
            return ""
        name, _, remedy = max(self._stages(), key=lambda stage: stage[1])
        return f"Warning: {name} may need more than is available. {remedy}."

    def refuse(self) -> None:
        """Raises MatchError where models and moments alone, which are known exactly, do not fit."""
        if self.available is not None and self.models + self.moments + self.waiting > self.available:
            raise MatchError(
                f"{self.text()} Let the groups take turns with --max-memory {size(self.available)}: the largest moments "
                f"are those of {self.largest}."
            )

    def tell(self, say: Callable[[str], None], passes: int = 1) -> None:
        """Says it; of several passes, of the one that needs most. Raises as `refuse` does."""
        self.refuse()
        several = "" if passes == 1 else f"{passes} passes over the data, for the memory. "
        for text in filter(None, (f"{several}{self.text()}", self._warning())):
            say(text)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total}


def needed(
    plan: Plan,
    weights: int,
    trace: Trace,
    inputs: int | None = None,
    checkpoint: bool = False,
    keys: Collection[str] | None = None,
) -> Memory:
    """The estimate.

    weights     numbers in both models together; they are run in float32
    trace       of a model, on its short example
    inputs      numbers in the first argument of a batch; None when that is not known
    checkpoint  whether moments are saved on the way
    keys        of the probes that are observed in one pass; all when None
    """
    probes = {key: p for key, p in choose_probes(plan).items() if keys is None or key in keys}
    moments = {key: _moments(plan, probe) for key, probe in probes.items()}
    waiting = sum(_waiting(plan, probe) for probe in probes.values())
    total = sum(moments.values()) * (SAVING if checkpoint else 1)
    largest = max(moments, key=lambda key: moments[key], default="")
    batch = None if inputs is None else _activations(probes.values(), trace, inputs)
    return Memory(SINGLE * weights, total, batch, largest.partition(" ")[0], available(), waiting)


@dataclass(frozen=True)
class Pass:
    """One run of both models over the data: the probes that it observes, and the memory that it needs."""

    keys: tuple[str, ...]
    memory: Memory


def passes(plan: Plan, limit: int | None, estimate: Callable[[Collection[str]], Memory]) -> list[Pass]:
    """As few passes as keep each within so many bytes, groups in their order; one where there is no limit.

    estimate   what a pass over some probes needs

    Raises MatchError where one group alone needs more.
    """
    chosen = choose_probes(plan)
    if limit is None:
        return [Pass(tuple(chosen), estimate(chosen))]
    found: list[Pass] = []
    together = families({key: probe.layout for key, probe in chosen.items()})
    order = {key: i for i, key in enumerate(chosen)}
    for keys in sorted(together, key=lambda keys: min(order[key] for key in keys)):
        wider = (*found[-1].keys, *keys) if found else tuple(keys)
        memory = estimate(wider)
        if memory.calibration > limit and found:
            wider, memory = tuple(keys), estimate(keys)
            found.append(Pass(wider, memory))
        if memory.calibration > limit:
            raise MatchError(
                f"--max-memory {size(limit)}: the units of {memory.largest} alone need {size(memory.calibration)} "
                f"({memory.parts}). Allow as much, or give a smaller --batch."
            )
        found[-1:] = [Pass(wider, memory)]
    return found or [Pass((), estimate(()))]


def parse_size(text: str) -> int | None:
    """Bytes of "8GB", "500 MB" or a number of bytes; None for "". Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if not text:
        return None
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--max-memory {text}: write a number and a unit, as in 8GB or 500MB.")
    base = 1024 if match[3] else 1000
    return int(float(match[1]) * base ** " kmgt".index(match[2] or " "))


def _moments(plan: Plan, probe: Probe) -> int:
    """float64: per slot the product of all pairs of units, and shift, sum and square of each unit of A and B."""
    units = layout_of(plan.spec, probe).units
    slots = max(1, math.prod(probe.positions.shape) // units)
    return WIDE * slots * (units * units + 6 * units)


def _waiting(plan: Plan, probe: Probe) -> int:
    """float32: the products of all pairs of units, where they are not so few that they are float64 throughout."""
    units = layout_of(plan.spec, probe).units
    return 0 if units < NARROW else SINGLE * units * math.prod(probe.positions.shape)


def _activations(probes: Iterable[Probe], trace: Trace, inputs: int) -> int:
    """float32: what the probes hold, as columns of A and B and as B's are computed, and the largest results on the way."""
    nodes = {probe.node for probe in probes}
    probed = sum(math.prod(trace.by_name[n].shape) for n in nodes if n in trace.by_name)
    return round(SINGLE * growth(trace, inputs) * (3 * probed + 2 * largest_result(trace)))


def growth(trace: Trace, inputs: int) -> float:
    """How much larger a batch is than the short example: all that depends on the input grows with it, as along batch and
    time."""
    example = next((node.shape for node in trace.nodes if node.op == "input"), ())
    return inputs / max(1, math.prod(example))


def largest_result(trace: Trace) -> int:
    """Numbers in the largest tensor that depends on the input, on the short example."""
    return max((math.prod(node.shape) for node in _fed(trace)), default=0)


def _fed(trace: Trace) -> Iterator[Node]:
    """The nodes that depend on an input."""
    seen: set[str] = set()
    for node in trace.nodes:
        if node.op == "input" or not seen.isdisjoint(node.refs()):
            seen.add(node.name)
            yield node


def available() -> int | None:
    """Bytes that this process may still take: of the machine, of its container, of its own limit; None if none is known."""
    known = [*_of_machine(), *_of_container(), *_of_limits()]
    return max(0, min(known)) if known else None


def _of_machine() -> Iterator[int]:
    """Free memory with what the system gives back when asked (caches), and swap."""
    try:
        rows = dict(line.split(":", 1) for line in _MEMINFO.read_text(encoding="ascii").splitlines())
        yield 1024 * sum(int(rows[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError, IndexError):
        names = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")
        pages = next((name for name in names if name in os.sysconf_names), None)
        if pages is not None:
            yield os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")


def _of_container() -> Iterator[int]:
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        rows = dict(
            line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
        )
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        yield limit - used + int(rows.get("inactive_file", 0))
    except (OSError, ValueError):  # no such limit here
        return


def _of_limits() -> Iterator[int]:
    """`ulimit -v` counts addresses, `ulimit -d` data: what is left of each."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, column in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        most = resource.getrlimit(limit)[0]
        if most == resource.RLIM_INFINITY:
            continue
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[column])
            yield most - pages * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            continue


def size(count: int) -> str:
    """Bytes for a reader: 5.9 GB, 240 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 999_500_000 else f"{max(1, round(count / 1e6))} MB"
