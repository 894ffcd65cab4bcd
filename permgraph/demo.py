"""What `permgraph demo` works on: two small encoders that ship with the package, and audio made on the spot.

Both encoders are HuBERTs in miniature, pre-trained by tools/pretrain from different seeds, A on speech-like
and B on music-like synthetic audio. Their recipes lie beside the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from permgraph.atomic_write import refuse_output
from permgraph.errors import FileError
from permgraph.inputs.synthetic import KINDS, RATE, synthesise

if TYPE_CHECKING:
    from permgraph.calibration import Bar

CLIPS, SECONDS = 5, 8.0  # of each kind: 80 s in all


def demo_models() -> tuple[Path, Path]:
    """Folders of encoder A (speech) and B (music), in the Hugging Face layout. Raises FileError."""
    here = Path(__file__).resolve().parent / "demo_data"
    folders = here / "encoder_a", here / "encoder_b"
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise FileError(f"{folder}: permgraph's demo encoders are missing. Install permgraph again.")
    return folders


def demo_audio(out_dir: str | Path, seed: int = 0) -> list[Path]:
    """Synthesise ten clips of eight seconds, speech and music, into `out_dir`; the WAV files, sorted."""
    import soundfile

    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    files = []
    for kind in KINDS:
        for clip in range(CLIPS):
            path = out_dir / f"{kind}_{clip}.wav"
            # far from the seeds of pre-training, which count up from 0
            soundfile.write(path, synthesise(kind, SECONDS, 10_000_000 + seed * CLIPS + clip), RATE)
            files.append(path)
    return sorted(files)


GROUPS = "cnn,heads,ffn2"
WEIGHTS = (0.5, 0.5)


def run_demo(
    out: str | Path, say: Callable[[str], None], bar: Bar | None = None, seed: int = 0, force: bool = False
) -> Path:
    """Trace, plan, draw, match, merge and judge the demo pair, into the folder `out`. Returns `out`.

    force  replace what an earlier demo wrote there

    `say` is called with what a person should read, line by line. Raises FileError when `out` cannot be written.
    """
    from permgraph.calibration import Calibration
    from permgraph.pipeline import align, merge_all, plan_for
    from permgraph.reporting.card import matching_text
    from permgraph.reporting.drawing.picture import picture
    from permgraph.reporting.drawing.render import render
    from permgraph.reporting.tables import spec_text
    from permgraph.reporting.text import clean
    from permgraph.weights.encoder import compare, open_encoder

    out = Path(out)
    if out.parent.is_dir():
        refuse_output(out, folder=True, force=force, mark="plan.json")
    a, b = (open_encoder(folder) for folder in demo_models())
    compare(a, b)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out}: cannot make this folder: {error.strerror or error}.") from error
    say("Two small HuBERTs, pre-trained separately: A on speech-like, B on music-like audio.\n")
    plan = plan_for(a, GROUPS)
    plan.save(out / "plan.json")
    say(spec_text(plan.spec))
    render(picture(a.trace, plan.spec, plan), out / "graph.svg")
    audio = demo_audio(out / "audio", seed)
    seconds = len(audio) * SECONDS
    say(
        f"\nPlan {GROUPS}: {len(plan.steps)} steps. Matching B's units to A's on {seconds:.0f} s of synthesised audio.\n"
    )
    done = align(a, b, plan, Calibration((str(out / "audio"),), seconds=4.0), seed=seed, bar=bar)
    done.perms.save(out / "permutations.safetensors")
    say("Mean correlation of units, matched and in place (before), beside shuffled ones:\n")
    say(matching_text(done.perms.report))
    (merged,), _ = merge_all(a, b, done, out / "merged", [WEIGHTS], command="permgraph demo", force=True)
    say("")
    for note in done.notes:
        say(note)
    say(
        f"\nThe graph is drawn in {clean(str(out / 'graph.svg'))}; the merged encoder, {WEIGHTS[0]:g} A + {WEIGHTS[1]:g} B, "
        f"is {clean(str(merged))}."
    )
    return out
