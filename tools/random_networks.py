"""Judge inference on random small networks: the law, nauty's order, the bound from above.

    python tools/random_networks.py --count 10000 --seed 0 --resume

One line of JSON a network goes to --output as soon as it is judged; --resume goes on after those that are there.
Counts are printed at the end and every hundred networks, with the seeds of all faults. Exits 1 where there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from oracles.judge import Verdict, judge


def known(path: Path) -> dict[int, Verdict]:
    """What was judged before, by seed."""
    if not path.exists():
        return {}
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {row["seed"]: Verdict(**(row | {"families": tuple(row["families"])})) for row in rows}


def summary(verdicts: list[Verdict]) -> str:
    """The counts, and the seeds that are at fault."""
    counts: Counter[str] = Counter(fault for v in verdicts for fault in v.faults)
    frozen = [v for v in verdicts if v.frozen]
    known = sum(v.above > 0 and "above" not in v.faults for v in verdicts)
    moving = [v for v in verdicts if v.log10_ours > 0]
    lines = [
        f"judged {len(verdicts):,}: {counts['unsound']} unsound, {counts['order']} with another order than nauty's, "
        f"{counts['unplanned']} that cannot be planned",
        f"above the bound: {counts['above']} of {sum(v.above >= 0 for v in verdicts):,} tried, "
        f"and {known} that are frozen, or whose function depends on nothing that moves",
        f"frozen: {len(frozen):,} (reported; smaller than nauty's order, and sound)",
        f"a tensor put back is noticed: {sum(v.moves for v in moving):,} of {len(moving):,} with groups",
    ]
    undecided = [str(v.seed) for v in verdicts if v.undecided]
    if undecided:
        lines.append(
            f"rounding chooses between equal values, and nothing is judged: seeds {', '.join(undecided)}"
        )
    lines += [
        f"  seed {v.seed}: {', '.join(v.faults)} {v.error} {'+'.join(v.families)}"
        for v in verdicts
        if v.faults
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, help="networks (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--bound-every", type=int, default=10, help="try the bound on every n-th; 0: on none")
    parser.add_argument("--output", type=Path, default=Path("random_networks.jsonl"))
    parser.add_argument("--resume", action="store_true", help="go on after what --output holds")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if not options.resume:
        options.output.write_text("", encoding="utf-8")
    verdicts = known(options.output)
    wanted = range(options.seed, options.seed + options.count)
    with options.output.open("a", encoding="utf-8") as file:
        for seed in (s for s in wanted if s not in verdicts):
            every = options.bound_every
            verdicts[seed] = judge(seed, bound=bool(every) and seed % every == 0)
            print(json.dumps(asdict(verdicts[seed])), file=file, flush=True)
            if len(verdicts) % 100 == 0:
                print(summary(list(verdicts.values())).splitlines()[0], flush=True)
    chosen = [v for seed, v in sorted(verdicts.items()) if seed in wanted]
    print(summary(chosen))
    return int(any(v.faults for v in chosen))


if __name__ == "__main__":
    sys.exit(main())
