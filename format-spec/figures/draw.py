"""Draws the figures of SPEC.md: NAME.txt beside this file becomes NAME.svg. Needs nothing but Python.

A line of NAME.txt is one thing; `#` begins a comment, coordinates are in cells of 8 x 8 points:

    size W H                       of the figure, first
    box X Y W H STYLE text         STYLE: key, data, event, void, plain; `|` breaks a line
    text X Y ANCHOR text           ANCHOR: start, middle, end
    note X Y ANCHOR text           small and grey
    arrow X1 Y1 X2 Y2 [text]       text stands above the middle
    line X1 Y1 X2 Y2               dashed

usage: draw.py [--check]           --check fails where a figure is not what its text makes"""

import pathlib
import sys
from html import escape

CELL = 8
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{title}">
<title>{title}</title>
<style>
svg {{ background: #fff; font: 13px system-ui, "DejaVu Sans", sans-serif }}
text {{ fill: #1b2430 }} .small {{ font-size: 11px; fill: #5a6675 }}
rect {{ stroke: #1b2430; stroke-width: 1.2; rx: 3 }}
.key {{ fill: #cfe0f7 }} .data {{ fill: #d5edd4 }} .event {{ fill: #fbe6b8 }} .plain {{ fill: #f4f5f7 }}
.void {{ fill: #fff; stroke: #98a2ae; stroke-dasharray: 4 3 }}
path {{ stroke: #1b2430; stroke-width: 1.2; fill: none }} .dash {{ stroke: #98a2ae; stroke-dasharray: 4 3 }}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 8 4 0 8z" style="fill: #1b2430; stroke: none"/></marker></defs>
"""


def draw(title, lines):
    out = []
    for line in lines:
        kind, *rest = line.split()
        take = {"size": 2, "box": 4, "text": 2, "note": 2, "arrow": 4, "line": 4}[kind]
        n = [float(word) * CELL for word in rest[:take]]
        words = rest[take:]
        if kind == "size":
            out.append(HEAD.format(w=round(n[0]), h=round(n[1]), title=escape(title)))
        elif kind == "box":
            style, *words = words
            x, y, w, h = n
            out.append(f'<rect class="{style}" x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}"/>')
            parts = " ".join(words).split("|")
            for i, part in enumerate(parts):
                middle = y + h / 2 + 4.5 + (i - (len(parts) - 1) / 2) * 15
                out.append(f'<text x="{x + w / 2:g}" y="{middle:g}" text-anchor="middle">{escape(part.strip())}</text>')
        elif kind in ("text", "note"):
            small = ' class="small"' if kind == "note" else ""
            out.append(f'<text{small} x="{n[0]:g}" y="{n[1]:g}" text-anchor="{words[0]}">{escape(" ".join(words[1:]))}</text>')
        elif kind == "line":
            out.append(f'<path class="dash" d="M{n[0]:g} {n[1]:g} {n[2]:g} {n[3]:g}"/>')
        else:
            out.append(f'<path d="M{n[0]:g} {n[1]:g} {n[2]:g} {n[3]:g}" marker-end="url(#tip)"/>')
            if words:
                x, y = (n[0] + n[2]) / 2, (n[1] + n[3]) / 2 - 5
                out.append(f'<text class="small" x="{x:g}" y="{y:g}" text-anchor="middle">{escape(" ".join(words))}</text>')
    return "\n".join(out).replace("\n\n", "\n") + "\n</svg>\n"


stale = []
for path in sorted(pathlib.Path(__file__).parent.glob("*.txt")):
    title, *lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    svg, target = draw(title, lines), path.with_suffix(".svg")
    if "--check" not in sys.argv:
        target.write_text(svg)
    elif not target.exists() or target.read_text() != svg:
        stale.append(target.name)
if stale:
    sys.exit(f"not what their text makes: {', '.join(stale)}; run format-spec/figures/draw.py")
