"""The page of `evaluate-trajectories`: tables, and pictures of clips with what was found on them.

One HTML file that needs nothing else, in the style of the evaluation's report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from hypercut_core.evaluation import films, tables
from hypercut_core.evaluation.page import page
from hypercut_core.trajectories.figures import REPEAT, FollowedClip
from hypercut_core.trajectories.following import BLURRY, TRUE
from hypercut_core.trajectories.measure import Picture, matched, subjects_of
from hypercut_core.trajectories.overlay import paths_over

TITLE = "Faces and hands in restored frames"
FOOT = ("The truth here is what the tracker itself finds on the true frames. Errors and paths take the better of the "
        "two directions of time, chosen once per clip; <em>size</em> is the eye distance or the palm (wrist to middle "
        "knuckle). Intervals: 95 %, bootstrapped over sources and clips within them.")
NOTE = ("<em>Found</em>: share of the pictures on which the tracker finds anything, and of the faces or hands of the "
        "true frames that it finds. <em>Within 0.2</em>: share of the "
        "true landmarks met within 0.2 sizes; those of a face or hand that was not found count as missed. "
        "<em>Error</em> is taken where something was found, and so on easier pictures the less is found: the columns "
        "against repeating compare on the same clips and frames. <em>Motion</em>: share of the true way from the first "
        "to the last frame (1 is right). <em>Roughness</em>: mean second difference of the paths; repeating has none "
        "because it stands still. <em>Direction</em>: how often the paths run in the canonical order of the order "
        "table, in clips in which something moves.")
COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    ("Found", "% of pictures", "rate", 1), ("Found", "% of the true", "found", 1),
    ("Within 0.2", "% of landmarks", "within", 1), ("Error", "px", "error_px", 2), ("Error", "% of size", "error", 1),
    ("Motion", "ratio", "motion", 2), ("Roughness", "% of size", "roughness", 1))
AGAINST: tuple[tuple[str, str, str, int], ...] = (
    ("More found", "points", "rate_gain", 1), ("Clips", "more / same / fewer", "rate", 0),
    ("More found", "of the true, points", "found_gain", 1), ("Less error", "% of size", "error_gain", 1),
    ("Less error", "px", "error_gain_px", 2), ("Clips", "less / more error", "error", 0))
SHARES = {"rate", "found", "within", "error", "roughness", "rate_gain", "found_gain", "error_gain",
          "direction"}  # shown times 100


@dataclass
class Shown:
    """A clip that the page shows."""

    place: int  # among the clips
    clip: np.ndarray  # uint8 [T + 1, H, W, 3], the blurry image first
    found: Mapping[str, Sequence[Picture]]  # by system
    restored: dict[str, np.ndarray] = field(default_factory=dict)  # model -> uint8 [T, H, W, 3], as it was made


def render(figures: Mapping[str, Any], clips: Sequence[FollowedClip], examples: Sequence[Shown],
           worst: Sequence[Shown], provenance: Mapping[str, Any]) -> str:
    """The page as HTML; every text from outside is escaped."""
    frames = int(figures["frames"])
    sections = [
        ("systems", "All systems", _systems(figures, figures) + f'<p class="small soft">{NOTE}</p>'),
        ("categories", "By category", "".join(
            f"<h3>{escape(name)}: {_several(one['clips'], 'clip')}, {_several(one['sources'], 'source')}</h3>"
            + _systems(one, figures)
            for name, one in figures["categories"].items())),
        ("clips", "Clips", "<p>An even choice, from the clip that gains most to the one that gains least.</p>"
         + _clips(clips, examples, figures)),
        ("worst", "Where restoring does not help", _worst(clips, worst, figures)),
        ("provenance", "Provenance", tables.pairs(provenance))]
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name, _ in sections)
    parts = [f'<section id="{key}"><h2>{name}</h2>{html}</section>' for key, name, html in sections]
    if examples or worst:  # the control stays in sight as long as there are films
        parts[2:4] = [f"<div>{''.join(parts[2:4])}{films.player(frames)}</div>"]
    return page(TITLE, f'<header><h1>{TITLE}</h1><p class="headline">{escape(headline(figures))}</p>'
                       f'<nav aria-label="Sections">{links}</nav></header><main>{"".join(parts)}</main>'
                       f"<footer><p>{FOOT}</p></footer>")


def headline(figures: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    mine, trivial, true = figures["models"][figures["default"]], figures["repeat"], figures["true"]
    return (f"Something is found on {_percent(mine['rate'])} of the restored frames, {_percent(trivial['rate'])} of "
            f"the blurry images and {_percent(true['rate'])} of the true frames; {_percent(mine['within'])} of the "
            f"landmarks are right, {_percent(trivial['within'])} if the blurry image is repeated.")


def off_page() -> str:
    """What stands in the page's place when the step is switched off."""
    return page(TITLE, f'<header><h1>{TITLE}</h1><p class="headline">Not measured: trajectories.enabled is '
                       "false.</p></header>")


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if np.isfinite(value) else "an unknown share"


def _systems(part: Mapping[str, Any], figures: Mapping[str, Any]) -> str:
    """All systems of the whole or of one category, and the models against repeating."""
    rows = [_row(escape(name), one) for name, one in (("true frames", part["true"]), (REPEAT, part["repeat"]))]
    rows += [_row(_named(name, figures), one) for name, one in part["models"].items()]
    heads = [("System", ""), *((title, unit) for title, unit, _, _ in COLUMNS), ("Direction", "%, of clips")]
    against = [[_named(name, figures),
                *(_against(one["against_repeating"], key, digits) for _, _, key, digits in AGAINST)]
               for name, one in part["models"].items()]
    versus = [("Against repeating", ""), *((title, unit) for title, unit, _, _ in AGAINST)]
    return f'{tables.table(heads, rows, "Systems")}<p></p>{tables.table(versus, against, "Against repeating")}'


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _named(name: str, figures: Mapping[str, Any]) -> str:
    return escape(name) + (' <span class="tag">default</span>' if name == figures["default"] else "")


def _row(name: str, one: Mapping[str, Any]) -> list[str]:
    cells = []
    for _, _, key, digits in COLUMNS:
        low, high = one.get(f"{key}_interval", (float("nan"),) * 2)
        known = np.isfinite(low) and high > low
        between = f"{_number(key, low, digits)} – {_number(key, high, digits)}"
        cells.append(_number(key, one[key], digits) + (f'<span class="unit">{between}</span>' if known else ""))
    if not one.get("direction_clips"):
        return [name, *cells, tables.MISSING]
    told = _number("direction", one["direction"], 0)
    return [name, *cells, f'{told}<span class="unit">of {one["direction_clips"]}</span>']


def _against(one: Mapping[str, Any], key: str, digits: int) -> str:
    if key == "rate":
        return f"{one['rate_higher']} / {one['rate_same']} / {one['rate_lower']}"
    if key == "error":
        return f"{one['error_lower']} / {one['error_higher']}"
    low, high = one[f"{key}_interval"]
    words = _number(key, one[key], digits, signed=True)
    if not np.isfinite(low):
        return words
    between = f"{_number(key, low, digits, signed=True)} – {_number(key, high, digits, signed=True)}"
    return f'{words}<span class="unit">{between}</span>'


def _number(key: str, value: float, digits: int, signed: bool = False) -> str:
    if not np.isfinite(value):
        return tables.MISSING
    scaled = value * (100 if key in SHARES else 1)
    return tables.signed(scaled, digits) if signed else f"{scaled:.{digits}f}".replace("-", "−")


def _clips(clips: Sequence[FollowedClip], shown: Sequence[Shown], figures: Mapping[str, Any]) -> str:
    drawn = "".join(_figure(clips[one.place], one, figures) for one in shown)
    return f'<div class="clips">{drawn}</div>' if shown else "<p>None was chosen for display.</p>"


def _worst(clips: Sequence[FollowedClip], shown: Sequence[Shown], figures: Mapping[str, Any]) -> str:
    name = figures["default"]
    rows = []
    for clip in clips:
        mine, trivial = clip.measured[name], clip.measured[REPEAT]
        more, right = mine.rate - trivial.rate, mine.within - trivial.within
        gain = np.subtract(*clip.shared(name)[::-1])
        if more < 0 or right < 0 or gain < 0:
            rows.append([escape(clip.clip_id), escape(clip.category), f"{clip.motion:.1f}", str(clip.subjects),
                         _number("rate_gain", more, 0, signed=True), _number("rate_gain", right, 1, signed=True),
                         _number("error_gain", float(gain), 1, signed=True)])
    said = (f"<p>{len(rows):,} of {len(clips):,} clips: less is found than on the blurry image, fewer landmarks are "
            "right, or the error is higher.</p>")
    heads = [("Clip", ""), ("Category", ""), ("Motion", "px"), ("True faces or hands", ""), ("More found", "points"),
             ("More within 0.2", "points"), ("Less error", "% of size")]
    listed = f"<details><summary>All of them</summary>{tables.table(heads, rows, 'Clips')}</details>" if rows else ""
    return said + _clips(clips, shown, figures) + listed


def _figure(about: FollowedClip, shown: Shown, figures: Mapping[str, Any]) -> str:
    subjects, height, width = subjects_of(shown.found[TRUE]), *shown.clip.shape[1:3]

    def panel(label: str, frames: np.ndarray, paths: Sequence[np.ndarray]) -> str:
        return _panel(label, frames, paths_over(paths, about.kind, height, width), about.clip_id)

    blurry = [one.points[None] for one in shown.found[BLURRY][0]]
    parts = [panel("blurry", shown.clip[:1], blurry)]
    for name, frames in shown.restored.items():
        turn = -1 if about.measured[name].reversed else 1
        parts.append(panel(name, frames[::turn], matched(subjects, shown.found[name][::turn])))
    parts.append(panel("true", shown.clip[1:], [subject.points for subject in subjects]))
    words = "; ".join(f"{escape(name)}: found on {_percent(one.rate)}, error {_number('', one.mean_error, 1)} px"
                      for name, one in about.measured.items() if name in (REPEAT, figures["default"]))
    many = " many" if len(parts) > 3 else ""
    return (f'<figure><div class="strip{many}">{"".join(parts)}</div><figcaption><strong>{escape(about.clip_id)}'
            f"</strong>: {escape(about.category)}, {about.motion:.0f} px<br>{words}</figcaption></figure>")


def _panel(label: str, frames: np.ndarray, over: str, about: str) -> str:
    """A picture or film with a drawing that stays over it."""
    small = films.shrink(frames)
    height, width = small.shape[1:3]
    film = "film moving" if len(small) > 1 else "film"
    return (f'<div class="panel"><span title="{escape(label)}">{escape(label)}</span>'
            f'<div class="{film}" style="--frames:{len(small)};aspect-ratio:{width}/{height};position:relative">'
            f'<img src="{films.strip(small)}" width="{width}" height="{height * len(small)}" '
            f'alt="{escape(about)}: {escape(label)}">{over}</div></div>')
