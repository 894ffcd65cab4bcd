"""Options and arguments that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_TRACE = Path("permgraph.trace.json")
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Alias (hubert, mert, whisper-tiny, …), Hugging Face folder or id, or file.py:factory.",
    ),
]
Class = Annotated[
    str,
    typer.Option(
        "--class",
        metavar="CLASS",
        help="Of a model folder, the class of transformers that is read, with its head: HubertForCTC, say, or config for "
        "the one that config.json names. Without it: the base model.",
    ),
]
Target = Annotated[
    str | None,
    typer.Argument(
        metavar="[TRACE|MODEL]",
        help="A trace file (default: permgraph.trace.json here), or a MODEL to trace now.",
    ),
]
Groups = Annotated[
    str,
    typer.Option(
        "--groups",
        "-g",
        help="Words, roles, names, globs, ranges (ffn.0-5) and presets, separated by commas.",
    ),
]
Exclude = Annotated[str, typer.Option("--exclude", "-x", help="The same notation, taken out again.")]
Mode = Annotated[
    str, typer.Option("--mode", help="exact (keeps the function), one-sided, untied, untied-qkv.")
]
Free = Annotated[bool, typer.Option("--free-output", help="Let the channels of the outputs move too.")]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")]
Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on standard output.")]
Strict = Annotated[bool, typer.Option("--strict", help="An op without a rule is an error.")]
Unfold = Annotated[bool, typer.Option("--unfold", help="One row for each of the repeated layers.")]
AudioArg = Annotated[
    list[str],
    typer.Option(
        "--audio",
        help="Folder, glob, file, manifest (csv/tsv), tar, or Lhotse's cuts (jsonl); repeat for more.",
    ),
]
IntegersOfA = Annotated[
    bool, typer.Option("--integers-of-a", help="Take A's integers and masks where B holds others.")
]
NoCheck = Annotated[
    bool,
    typer.Option("--no-check", help="Write without the function check; the record of the result says so."),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        max=3600,
        help="Length of every clip; default 5, or the length that the model's feature extractor reads (Whisper: 30).",
    ),
]
Clips = Annotated[
    int | None, typer.Option(min=1, max=10**9, help="At most so many clips, evenly spread over the files.")
]
Batch = Annotated[int, typer.Option(min=1, max=10**6, help="Clips at a time.")]
MaxBad = Annotated[
    float, typer.Option(min=0, max=1, help="Share of files that may be unusable or too short.")
]
AllowEmpty = Annotated[bool, typer.Option("--allow-empty", help="Let a source of audio give no clip at all.")]
Where = Annotated[list[str], typer.Option(help="Rows of a manifest to keep: COLUMN=VALUE.")]
OtherWeights = Annotated[
    bool,
    typer.Option(
        "--other-weights",
        help="Accept weights other than those that were matched: a later state of that model, fine-tuned say.",
    ),
]
Matcher = Annotated[
    str,
    typer.Option(
        help="correlation, covariance, abs, weights (no data), identity, random, or your own file.py:function."
    ),
]
Absolute = Annotated[
    bool,
    typer.Option("--abs", help="Match by the size of the correlation, whatever its sign: not for averaging."),
]
MinFrames = Annotated[
    int,
    typer.Option(min=0, max=10**12, help="Refuse to match where fewer frames than this were counted."),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="File to keep the statistics in: a stopped run resumes from it.")
]
State = Annotated[
    str,
    typer.Option(
        help="Which weights of a training file that holds several: ema (the running average), or a key of the file."
    ),
]
Parametrized = Annotated[
    str,
    typer.Option(
        help="Weights that are computed from parts (weight norm): direction (averaged as computed, with the interpolated "
        "norm), weight (the average itself, whose norm is smaller) or parts (each stored tensor for itself)."
    ),
]
Data = Annotated[
    str,
    typer.Option(help="Instead of audio: file.py:batches, your function that yields what the models take."),
]
Text = Annotated[
    list[str],
    typer.Option(help="Instead of audio: a text file, one sample a line; A's folder has the tokenizer."),
]
Images = Annotated[
    list[str],
    typer.Option(
        help="Instead of audio: a folder of images, a glob or a file; each model's folder has the image processor."
    ),
]
ModelA = Annotated[Path | None, typer.Option("--a", help="Model A, the reference.")]
ModelB = Annotated[Path | None, typer.Option("--b", help="Model B, to be aligned to A.")]
PerModelRate = Annotated[
    bool, typer.Option("--per-model-rate", help="Let A and B have different sampling rates.")
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=2**32 - 1, help="Of the random matcher, random starts and the shuffled baseline."
    ),
]
Stride = Annotated[
    int,
    typer.Option(
        "--frame-stride",
        min=1,
        max=10**6,
        help="Of the frames of front-end convolutions, many and alike, count every so many-th: faster, nearly as good.",
    ),
]
Device = Annotated[
    str,
    typer.Option(help="Where the models run: cpu, auto, cuda:0; or one for A and one for B: cuda:0,cuda:1."),
]
MaxMemory = Annotated[
    str,
    typer.Option(
        "--max-memory",
        help="What calibration may take, 8GB say: groups take turns, in several passes over the data where they must. The "
        "result is the same.",
    ),
]
Align = Annotated[
    str,
    typer.Option(
        "--align",
        help="Of more than two models: first (each is matched with A alone), many (each with the mean of all others, in turn: "
        "MergeMany), universe (all pairs at once).",
    ),
]
More = Annotated[
    list[Path], typer.Argument(metavar="[C]…", help="More models to align and merge in.", show_default=False)
]
Method = Annotated[
    str,
    typer.Option(
        help="How both are merged: average, or ties, slerp, task_arithmetic, … of mergekit (permgraph methods lists them)."
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(help="Of methods that merge differences: the network to take them from, in A's order."),
]
Parameter = Annotated[
    list[str], typer.Option(help="Of the method, as mergekit names it: density=0.5; repeat for more.")
]
