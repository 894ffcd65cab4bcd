"""The gallery: networks of many kinds as pictures and as pages, into docs/gallery.

    python tools/gallery.py [NAME …] [--out FOLDER]

Each picture is drawn by `permgraph draw`; docs/gallery/README.md shows them.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import permgraph as pg
from permgraph.cli.shared import capture_model
from permgraph.reporting.drawing.picture import picture
from permgraph.reporting.drawing.render import render

ROOT = Path(__file__).resolve().parents[1]
FACTORIES = ROOT / "tools" / "networks" / "gallery.py"
# Name of the picture → what is traced, what it is.
NETWORKS = {
    "attention": (f"{FACTORIES}:attention", "One attention layer, explained in attention.md"),
    "hubert-base": ("hubert", "HuBERT-base, 12 layers on 7 convolutions"),
    "whisper-large-v3": ("whisper-large-v3", "The encoder of Whisper large v3"),
    "llama-7b": (f"{FACTORIES}:llama_7b", "Llama 2 7B"),
    "vit-base": (f"{FACTORIES}:vit", "ViT-B/16"),
    "swin-tiny": (f"{FACTORIES}:swin", "Swin-T: the residual stream of every stage is a group"),
    "resnet-50": (f"{FACTORIES}:resnet50", "ResNet-50: four stages, each with a stream of its own"),
    "unet": (f"{FACTORIES}:unet", "A U-Net with GroupNorm: channels move within groups, skips join streams"),
    "onset-detector": (
        f"{FACTORIES}:onsets",
        "Three bidirectional recurrent layers (madmom's onset detectors)",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gallery")
    typed = parser.parse_args()
    typed.out.mkdir(parents=True, exist_ok=True)
    for name in typed.names or NETWORKS:
        trace = replace(capture_model(NETWORKS[name][0]), model=name)
        print(render(picture(trace, pg.infer(trace)), typed.out / f"{name}.svg"), flush=True)
    lines = [f"## {name}\n\n{about}\n\n![{about}]({name}.svg)\n" for name, (_, about) in NETWORKS.items()]
    head = "# Gallery\n\nMade by `python tools/gallery.py`; no weights are read.\n"
    (typed.out / "README.md").write_text("\n".join([head, *lines]), encoding="utf-8")


if __name__ == "__main__":
    main()
