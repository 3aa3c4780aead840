"""One page without network: a slider turns the motion of a clip, and one sees where each deblurrer flips."""

from __future__ import annotations

import base64
import hashlib
from html import escape

import numpy as np
import torch
from torch import Tensor

from benchmarks.seam import SHOWN, Turn
from hypercut_core.evaluation.films import strip

WIDTH, HEIGHT = 620, 150  # of a chart, px
ABOUT = {
    "order_invariant": "takes the size of the odd part alone, pixel by pixel: sign and with it motion are lost",
    "sequence_min": "chooses a direction for the whole clip; its seam is where it finds one",
    "rule_targets": "asked for motion to the right: its seam is at 90 degrees",
    "hypercut_targets": "asked for the learned order: its seam is where u = 0",
    "hypercut_targets, two axes": "asked for the odd part times cosine and sine of the learned angle: no seam",
}
INTRODUCTION = """Turn the motion. After half a turn the blurry image is the same again and the sequence is
reversed: whoever names <em>one</em> direction for each blurry image must change it somewhere on the way, and hedges
between the two close to there. <span class="soft">Photos that no model was trained on; one view; deblurrers of
<code>python -m benchmarks.orders</code>.</span>"""
STYLE = """
:root { color-scheme: light dark; --ground:#fbfbfa; --card:#fff; --ink:#1c1f23; --soft:#5a626c; --line:#dcdfe3; }
@media (prefers-color-scheme: dark) { :root { --ground:#14171a; --card:#1c2024; --ink:#e8eaed; --soft:#a5adb7;
  --line:#363c43; } }
* { box-sizing:border-box; } body { margin:0 auto; max-width:62rem; padding:1.5rem; background:var(--ground);
  color:var(--ink); font:16px/1.5 system-ui, sans-serif; }
h1 { font-size:1.5rem; margin:0 0 .4rem; } p { max-width:48rem; margin:.3rem 0 .8rem; } .soft { color:var(--soft); }
.control { position:sticky; top:0; z-index:1; background:var(--ground); padding:.6rem 0; display:flex; gap:1rem;
  align-items:center; border-bottom:1px solid var(--line); } .control input { flex:1; accent-color:#0b62a8; }
output { min-width:13rem; font-variant-numeric:tabular-nums; }
.row { display:grid; grid-template-columns:11rem 6rem 6rem 6rem 1fr; gap:.8rem; align-items:center;
  padding:.6rem 0; border-bottom:1px solid var(--line); }
.tile { width:6rem; height:6rem; overflow:hidden; border-radius:.3rem; background:#888; }
.tile img { display:block; width:6rem; image-rendering:pixelated; }
.name { font-weight:600; } .note { font-size:.85rem; color:var(--soft); }
.head { color:var(--soft); font-size:.85rem; padding:.3rem 0; }
svg { width:100%; height:auto; background:var(--card); border:1px solid var(--line); border-radius:.5rem; }
svg text { fill:var(--soft); font-size:12px; } .cursor { stroke:var(--ink); stroke-width:1; stroke-dasharray:3 3; }
@media (max-width:44rem) { .row { grid-template-columns:repeat(3, 1fr); } .row .name, .row .note { grid-column:1/-1; } }
"""
SCRIPT = """
const slider = document.querySelector('input[type=range]'), said = document.querySelector('output');
const button = document.querySelector('button'), films = [...document.querySelectorAll('.tile img')];
let frame = 0, timer = null;
for (const row of document.querySelectorAll('.row:not(.head)'))
  for (const img of row.querySelectorAll('img:not([src])')) img.src = row.querySelector('img').src;
function show() {
  const at = +slider.value;
  for (const img of films) {
    const ts = +img.dataset.frames, t = img.dataset.t === 'play' ? frame % ts : +img.dataset.t;
    img.style.marginTop = -6 * (at * ts + t) + 'rem';
  }
  for (const line of document.querySelectorAll('.cursor')) {
    const x = 10 + at / slider.max * (WIDTH - 20);
    line.setAttribute('x1', x); line.setAttribute('x2', x);
  }
  for (const node of document.querySelectorAll('[data-values]')) node.textContent = JSON.parse(node.dataset.values)[at];
  said.textContent = 'motion towards ' + DEGREES[at] + '\\u00b0, u = ' + SCORES[at];
}
slider.addEventListener('input', show);
button.addEventListener('click', () => {
  if (timer) { clearInterval(timer); timer = null; button.textContent = 'Play'; return; }
  timer = setInterval(() => { frame++; show(); }, 140); button.textContent = 'Pause';
});
button.click(); show();
"""


def page(found: Turn) -> str:
    """The whole page as HTML; pictures and numbers are inside."""
    blurry = torch.stack([clip[0] for clip in found.clips])[:, None]
    sharp = torch.stack([clip[1] for clip in found.clips])
    rows = [_row("blurry image", blurry, "all that a deblurrer is given", films=False),
            _row("as it was shot", sharp, "at 180 degrees the blurry image is that of 0 degrees again, and this "
                                          "sequence is that of 0 degrees reversed"),
            _row("its reversal", sharp.flip(1), "explains the blurry image just as well")]
    rows += [_row(name, output, ABOUT[name], found.shares[name]) for name, output in found.outputs.items()]
    scale = float(np.abs(found.scores).max())
    charts = [_chart("score u of the sequence that was shot: the seam of the learned order is where it is 0",
                     {"u": found.scores / scale}, {"u": "#0072b2"}),
              _chart("<D', D> / |D|²: 1 the sequence that was shot, -1 its reversal, 0 hedging between them",
                     found.shares, SHOWN)]
    script = (SCRIPT.replace("WIDTH", str(WIDTH)).replace("DEGREES", str([round(float(d)) for d in found.degrees]))
              .replace("SCORES", str([f"{u:.1f}" for u in found.scores])))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The seam of an order of time</title>'
            f'<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" '
            f'content="{policy}"><style>{STYLE}</style></head><body><h1>The seam of an order of time</h1>'
            f"<p>{INTRODUCTION}</p>"
            f'<div class="control"><button type="button">Play</button><input type="range" min="0" '
            f'max="{len(found.degrees) - 1}" value="0" step="1" aria-label="direction of the motion"><output></output>'
            f'</div><div class="row head"><span></span><span>film</span><span>first frame</span><span>last frame</span>'
            f"<span></span></div>{''.join(rows)}{''.join(charts)}<script>{script}</script></body></html>")


def _row(name: str, sequences: Tensor, note: str, shares: np.ndarray | None = None, films: bool = True) -> str:
    """One line: the film, its first and its last frame, at the angle of the slider."""
    count = sequences.shape[1]
    pixels = sequences.clamp(0, 1).mul(255).round().byte().permute(0, 1, 3, 4, 2).flatten(0, 1).numpy()
    source = strip(pixels)
    times = ("play", "0", str(count - 1)) if films else ("0",)
    first = f' src="{source}"'  # the script gives the same picture to the others of the row
    tiles = "".join(f'<div class="tile"><img{first if t == times[0] else ""} data-frames="{count}" data-t="{t}" '
                    f'alt="{escape(name)}"></div>' for t in times)
    tiles += "<div></div>" * (3 - len(times))
    value = ""
    if shares is not None:
        values = str([f"{share:+.2f}" for share in shares]).replace("'", "&quot;")
        value = f' <strong data-values="{values}"></strong>'
    colour = f' style="color:{SHOWN[name]}"' if name in SHOWN else ""
    return (f'<div class="row"><span class="name"{colour}>{escape(name)}{value}</span>{tiles}'
            f'<span class="note">{escape(note)}</span></div>')


def _chart(title: str, lines: dict[str, np.ndarray], colours: dict[str, str]) -> str:
    """Lines over the angle, values from -1 to 1, and a cursor that follows the slider."""
    paths = []
    for name, values in lines.items():
        x = np.linspace(10, WIDTH - 10, len(values))
        y = HEIGHT / 2 - np.clip(values, -1.1, 1.1) * (HEIGHT / 2 - 22)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        paths.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
    middle = HEIGHT / 2
    return (f'<p class="note" style="margin-top:1rem">{escape(title)}</p>'
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
            f'<line x1="10" x2="{WIDTH - 10}" y1="{middle}" y2="{middle}" stroke="#999" stroke-width="0.6"/>'
            f'{"".join(paths)}<line class="cursor" y1="5" y2="{HEIGHT - 5}"/>'
            f'<text x="10" y="{HEIGHT - 4}">0°</text><text x="{WIDTH - 36}" y="{HEIGHT - 4}">180°</text></svg>')
