"""The page round a report: style sheet, script of the film strips, and a policy that forbids any request."""

from __future__ import annotations

import base64
import hashlib
from html import escape

STYLE = """
:root { color-scheme: light dark; --ground:#fbfbfa; --card:#fff; --ink:#1c1f23; --soft:#5a626c;
  --line:#dcdfe3;
  --accent:#0b62a8; --best:#e4f1e6; --bad:#b3261e;
  --c0:#0b62a8; --c1:#c0490b; --c2:#12795b; --c3:#9a3f86; --c4:#8a6d00; --c5:#2b8fbf; --c6:#6b4bb8;
  --c7:#6a7078; }
@media (prefers-color-scheme: dark) { :root { --ground:#14171a; --card:#1c2024; --ink:#e8eaed;
  --soft:#a5adb7;
  --line:#363c43; --accent:#7ab8f0; --best:#1f3a29; --bad:#ff9a91;
  --c0:#6cb2f2; --c1:#ff9a5c; --c2:#4fc9a0; --c3:#e79ad2; --c4:#e5c34b; --c5:#8fdcff; --c6:#b8a0ff;
  --c7:#a5adb7; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--ground); color:var(--ink);
  font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main, header, footer { max-width:76rem; margin:0 auto; padding:0 1.25rem; }
header { padding-top:2.25rem; } footer { padding-bottom:3rem; color:var(--soft); font-size:.875rem; }
h1 { font-size:1.05rem; font-weight:600; color:var(--soft); margin:0 0 .5rem; }
h2 { font-size:1.3rem; line-height:1.25; margin:3rem 0 .5rem; } h3 { font-size:1rem;
  margin:1.5rem 0 .4rem; }
p { margin:.4rem 0 .9rem; max-width:46rem; } a { color:var(--accent); }
.headline { font-size:clamp(1.45rem, 1rem + 2vw, 2.1rem); line-height:1.22; font-weight:650;
  margin:0 0 .9rem;
  letter-spacing:-.01em; max-width:50rem; text-wrap:balance; }
.soft { color:var(--soft); } .bad { color:var(--bad); } .small { font-size:.875rem; }
nav { display:flex; flex-wrap:wrap; gap:.2rem 1.1rem; margin-top:1.2rem; padding-top:.8rem;
  border-top:1px solid var(--line); font-size:.9rem; }
.facts { display:grid; grid-template-columns:repeat(auto-fit, minmax(9.5rem, 1fr)); gap:.75rem;
  margin:1.5rem 0 0;
  padding:0; }
.facts div { background:var(--card); border:1px solid var(--line); border-radius:.6rem;
  padding:.7rem .9rem; }
.facts + p { margin-top:1rem; }
.facts dt { color:var(--soft); font-size:.82rem; line-height:1.3; }
.facts dd { margin:.15rem 0 0; font-size:1.35rem; font-weight:600; font-variant-numeric:tabular-nums; }
.scroll { overflow-x:auto; border:1px solid var(--line); border-radius:.6rem; background:var(--card); }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; font-size:.9rem; }
th, td { padding:.5rem .6rem; text-align:right; border-bottom:1px solid var(--line); white-space:nowrap; }
th:first-child, td:first-child { text-align:left; position:sticky; left:0; background:var(--card); }
thead th { vertical-align:bottom; white-space:normal; font-weight:600; font-size:.82rem; line-height:1.3; }
tbody th { font-weight:600; } tbody tr:last-child > * { border-bottom:0; }
td.best { background:var(--best); font-weight:700; } td.text { text-align:left; }
.unit { display:block; color:var(--soft); font-weight:400; }
.tag { font-size:.72rem; font-weight:600; border:1px solid var(--line); border-radius:1rem;
  padding:.05rem .45rem;
  margin-left:.4rem; color:var(--soft); }
.pair { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap:1.25rem; }
figure { margin:0; background:var(--card); border:1px solid var(--line); border-radius:.6rem;
  padding:.9rem; }
figcaption { font-size:.9rem; color:var(--soft); margin-top:.5rem; } figcaption strong { color:var(--ink); }
figure.wide { max-width:52rem; margin:1rem 0; }
.chart { display:block; width:100%; height:auto; font-size:13.5px; } .chart text { fill:var(--soft); }
.chart .label { fill:var(--ink); }
.grid { stroke:var(--line); } .axis { stroke:var(--soft); } .bar { fill:var(--c0); }
.dot { fill:var(--c7); fill-opacity:.45; }
.curve { fill:none; stroke-width:2.25; stroke-linejoin:round; } .mark { stroke:var(--card);
  stroke-width:1; }
.curve.s0 { stroke:var(--c0); } .mark.s0 { fill:var(--c0); }
.curve.s1 { stroke:var(--c1); } .mark.s1 { fill:var(--c1); }
.curve.s2 { stroke:var(--c2); } .mark.s2 { fill:var(--c2); }
.curve.s3 { stroke:var(--c3); } .mark.s3 { fill:var(--c3); }
.curve.s4 { stroke:var(--c4); } .mark.s4 { fill:var(--c4); }
.curve.s5 { stroke:var(--c5); } .mark.s5 { fill:var(--c5); }
.curve.s6 { stroke:var(--c6); } .mark.s6 { fill:var(--c6); }
.curve.s7 { stroke:var(--c7); } .mark.s7 { fill:var(--c7); }
.legend { display:flex; flex-wrap:wrap; gap:.25rem 1.2rem; list-style:none; padding:0; margin:.6rem 0 0;
  font-size:.9rem; }
.swatch { width:2.5rem; height:.875rem; vertical-align:-.1rem; margin-right:.35rem; }
.clips { display:grid; grid-template-columns:repeat(auto-fill, minmax(min(100%, 29rem), 1fr));
  gap:1.25rem; }
.strip { display:grid; grid-template-columns:repeat(3, 1fr); gap:.4rem; }
.strip.many { grid-template-columns:repeat(auto-fill, minmax(min(6.8rem, 30%), 1fr)); }
figure + figure { margin-top:1.25rem; } .clips figure, .pair figure { margin-top:0; }
.panel { display:flex; flex-direction:column; justify-content:flex-end; }
.panel > span { font-size:.8rem; line-height:1.3; color:var(--soft); margin-bottom:.2rem;
  overflow-wrap:anywhere; }
.film { overflow:hidden; border-radius:.25rem; background:var(--line); }
.film img { display:block; width:100%; height:auto; }
.film .small-pixels { image-rendering:pixelated; }
.film.moving img {
  animation:film calc(var(--frames) * .11s) steps(var(--frames), jump-none) infinite alternate; }
@keyframes film { to { transform:translateY(calc(-100% + 100% / var(--frames))); } }
.stopped .film.moving img { animation:none;
  transform:translateY(calc(-100% * var(--at, 0) / var(--frames))); }
@media (prefers-reduced-motion: reduce) { .film.moving img { animation-play-state:paused; } }
.player { display:none; position:sticky; bottom:.75rem; z-index:2; align-items:center; gap:.8rem;
  max-width:26rem;
  margin:1rem auto 0; padding:.45rem .8rem; background:var(--card); border:1px solid var(--line);
  border-radius:2rem; box-shadow:0 2px 12px #0003; font-size:.9rem; }
.player.ready { display:flex; } .player input { flex:1; min-width:4rem; accent-color:var(--accent); }
.player output { min-width:5.6rem; text-align:right; font-variant-numeric:tabular-nums; }
button { font:inherit; padding:.2rem .9rem; min-width:5rem; border-radius:1rem;
  border:1px solid var(--line);
  background:var(--ground); color:var(--ink); cursor:pointer; }
:focus-visible { outline:2px solid var(--accent); outline-offset:2px; }
details { margin:1rem 0; } summary { cursor:pointer; color:var(--accent); } details > .scroll {
  margin-top:.6rem; }
pre { margin:0; padding:.9rem; font-size:.82rem; overflow-x:auto; }
.provenance th { white-space:normal; text-align:left; min-width:8rem; } .provenance td { text-align:left;
  white-space:normal;
  overflow-wrap:anywhere; }
@media print { .player, nav { display:none !important; } figure, tr { break-inside:avoid; } }
"""

# Films play without it; with it they can be stopped and looked at frame by frame.
SCRIPT = """
(() => {
  const player = document.querySelector('.player');
  if (!player) return;
  const [button, slider, output] = ['button', 'input', 'output'].map(tag => player.querySelector(tag));
  const root = document.documentElement, last = Number(slider.max) - 1;
  let playing = !matchMedia('(prefers-reduced-motion: reduce)').matches, at = 0, step = 1;
  const show = () => {
    root.style.setProperty('--at', at);
    slider.value = at + 1;
    output.textContent = `frame ${at + 1} of ${last + 1}`;
    button.textContent = playing ? 'Pause' : 'Play';
  };
  button.addEventListener('click', () => { playing = !playing; show(); });
  slider.addEventListener('input', () => { playing = false; at = Number(slider.value) - 1; show(); });
  setInterval(() => {
    if (!playing || document.hidden) return;
    if (at + step < 0 || at + step > last) step = -step;
    at += step;
    show();
  }, 110);
  root.classList.add('stopped');
  player.classList.add('ready');
  show();
})();
"""


def page(title: str, body: str) -> str:
    """A whole HTML document. `title` is text, `body` is HTML whose texts are escaped already."""
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{script}'; "
              "base-uri 'none'; form-action 'none'")
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
            f'<style>{STYLE}</style>\n</head>\n<body>\n{body}\n<script>{SCRIPT}</script>\n</body>\n</html>\n')
