"""The font of the drawings: DejaVu Sans Condensed, regular and bold, reduced to the characters that they need.

    python tools/font_asset.py /usr/share/fonts/truetype/dejavu

writes permgraph/reporting/drawing/font/: .woff2 (embedded in every SVG), .ttf (for PNG and PDF) and the widths
that texts are measured by. Needs `pip install fonttools brotli`, and the fonts (Debian: fonts-dejavu-extra).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parents[1] / "permgraph" / "reporting" / "drawing" / "font"
SOURCES = {"regular": "DejaVuSansCondensed.ttf", "bold": "DejaVuSansCondensed-Bold.ttf"}
FAMILY = "Permgraph Sans"  # a name of its own: a viewer never takes another version of DejaVu for it
CHARACTERS = "".join(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x100)))) + "×→←↑↓≀−…⁻¹÷·–—≤≥≠∞±²³μσλ∥⊕▸▾"


def main() -> None:
    from fontTools import subset, ttLib

    widths = {}
    for weight, file in SOURCES.items():
        font = ttLib.TTFont(Path(sys.argv[1]) / file, recalcTimestamp=False)
        options = subset.Options(layout_features=[], hinting=False, notdef_outline=True)
        subsetter = subset.Subsetter(options)
        subsetter.populate(text=CHARACTERS)
        subsetter.subset(font)
        for record in font["name"].names:
            if record.nameID in (1, 4, 16):
                record.string = FAMILY
            elif record.nameID == 6:
                record.string = f"PermgraphSans-{weight.capitalize()}"
        glyphs, scale = font.getBestCmap(), 1000 / font["head"].unitsPerEm
        widths[weight] = {chr(c): round(font["hmtx"][glyph][0] * scale) for c, glyph in glyphs.items()}
        font.save(OUT / f"{weight}.ttf")
        font.flavor = "woff2"
        font.save(OUT / f"{weight}.woff2")
    text = json.dumps(widths, ensure_ascii=False, indent=0, separators=(",", ":"))
    (OUT / "widths.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
