"""validate-clips: are the clips what they claim to be? Great Expectations decides.

Table checks look at every clip; pixel checks at an even sample of each split (`clips_checked`).
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.clip_stores import open_clips
from components.verdict import Verdict, checks_of, deliver, leaks
from hypercut_core.blur.exposure import RESPONSES, blur_error
from hypercut_core.clips.store import ClipStore
from hypercut_core.errors import BadClipStore, MissingExtra

if TYPE_CHECKING:
    import pandas

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ValidateClipsConfig:
    """What clips must be like to be trained on and measured with."""

    train_min: int = 1  # fewest clips of the training split
    test_min: int = 1  # fewest clips of the test split
    side_min: int = 32  # shortest side of a clip, px
    motion_min: float = 0.5  # least motion over the exposure, px
    motion_max: float = 512.0  # most motion over the exposure, px
    clips_checked: int = 600  # clips whose pixels are checked, over all splits; 0: all
    blur_psnr_min: float = 45.0  # least PSNR of a blurry image against the mean of its frames, dB
    blur_psnr_min_noisy: float = 20.0  # the same for clips with recorded noise, dB
    captured_enforced: bool = False  # hold a camera's own blur to blur_psnr_min too, instead of reporting it
    change_min: float = 0.2  # least mean difference of first and last frame, grey levels of 255
    contrast_min: float = 1.0  # least standard deviation of the blurry image, grey levels of 255


def validate_clips(store: str | Path, config: ValidateClipsConfig, out: Path, report: Path) -> None:
    """Check a clip store; writes the verdict to `out` (JSON) and `report` (HTML).

    Raises:
        DataRejected: a rule is broken (both files are written first).
        BadClipStore: no clip store, or its table and arrays do not match.
        MissingExtra: great_expectations is not installed.
    """
    clips = open_clips(store)
    table = _table(clips, config)
    response = _better_response(table)
    checks = checks_of(_validate(table, _rules(config, clips.frames, response)), key="clip_id")
    deliver(Verdict("validate-clips", f"Clip store {Path(store).name}", checks, _figures(table, clips, response)),
            store, out, report)


def _table(clips: ClipStore, config: ValidateClipsConfig) -> pandas.DataFrame:
    """One row a clip: its record, what its pixels say, and in how many splits its source and bytes appear."""
    import pandas

    table = pandas.DataFrame([dataclasses.asdict(record) for record in clips.records])
    sample = _sample(clips, config.clips_checked)
    pixels = pandas.DataFrame([_look(clips, i) for i in sample], index=sample)
    table = table.join(pixels)
    table["checked"] = table.index.isin(sample)
    table["held"] = table["checked"] & ((table["blur"] == "synthetic") | config.captured_enforced)
    table["noisy"] = table["noise"] > 0
    for split in SPLITS:
        table[f"is_{split}"] = (table["split"] == split).astype(int)
    for name in ("source", "sha256"):
        table[f"leaked_{name}"] = leaks(table, name)
    return table


def _sample(clips: ClipStore, most: int) -> list[int]:
    """Evenly spread clips, every split and category with its share and at least one."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, record in enumerate(clips.records):
        groups.setdefault((record.split, record.category), []).append(i)
    share = 1.0 if most == 0 else min(1.0, most / len(clips.records))
    picked = [members[int(place)] for members in groups.values()
              for place in np.linspace(0, len(members) - 1, max(1, round(share * len(members))))]
    return sorted(set(picked))


def _look(clips: ClipStore, i: int) -> dict[str, Any]:
    """What the pixels of a clip say; not-a-number where they cannot be read."""
    record = clips.records[i]
    row: dict[str, Any] = {"intact": False, "change": np.nan, "contrast": np.nan, "blur_psnr": np.nan,
                           **{f"psnr_{response}": np.nan for response in RESPONSES}}
    try:
        clips.verify(i)
        frames = clips.read(i)
    except BadClipStore:
        return row
    blurry, sharp = frames[0], frames[1:]
    row |= {f"psnr_{response}": blur_error(blurry, sharp, response) for response in RESPONSES}
    row |= {"intact": True, "blur_psnr": row[f"psnr_{record.response}"], "contrast": float(blurry.std()),
            "change": float(np.abs(sharp[0].astype(np.float32) - sharp[-1]).mean())}
    return row


def _better_response(table: pandas.DataFrame) -> str:
    """The curve that explains the blur better than the recorded one by 1 dB or more; "" if none does."""
    recorded = float(table["blur_psnr"].mean())
    scores = {response: float(table[f"psnr_{response}"].mean()) for response in RESPONSES}
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] > recorded + 1.0 else ""


def _validate(table: pandas.DataFrame, rules: list[Any]) -> dict[str, Any]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # before the import: it reads it then
    try:
        import great_expectations as gx
    except ImportError as error:
        raise MissingExtra("great-expectations", "validation") from error
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    batch = (context.data_sources.add_pandas("memory").add_dataframe_asset("clips")
             .add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table}))
    outcome = batch.validate(gx.ExpectationSuite(name="clips", expectations=rules),
                             result_format={"result_format": "COMPLETE",
                                            "unexpected_index_column_names": ["clip_id"]})
    return outcome.to_json_dict()


def _rules(config: ValidateClipsConfig, frames: int, response: str) -> list[Any]:
    from great_expectations import expectations as gxe

    rules: list[Any] = []

    def rule(kind: Any, says: str, remedy: str, enforced: bool = True, where: str = "",
             **kwargs: Any) -> None:
        condition = {"row_condition": where, "condition_parser": "pandas"} if where else {}
        meta = {"rule": len(rules), "says": says, "remedy": remedy, "enforced": enforced}
        rules.append(kind(meta=meta, **condition, **kwargs))

    between, again = gxe.ExpectColumnValuesToBeBetween, "run 'hypercut synthesize-blur' again"
    for split, least in (("train", config.train_min), ("test", config.test_min)):
        rule(gxe.ExpectColumnSumToBeBetween, f"the {split} split has at least {least} clips",
             f"add footage, or lower validate_clips.{split}_min", column=f"is_{split}", min_value=least)
    rule(between, f"every clip has {frames} sharp frames", again, column="frames", min_value=frames,
         max_value=frames)
    for side in ("height", "width"):
        rule(between, f"{side}s are at least {config.side_min} px",
             "use larger footage, or lower validate_clips.side_min", column=side, min_value=config.side_min)
    rule(between, f"motion is {config.motion_min:g} to {config.motion_max:g} px over the exposure",
         "change the motion limits under 'blur', or those of validate_clips", column="motion",
         min_value=config.motion_min, max_value=config.motion_max)
    rule(gxe.ExpectColumnValuesToBeNull, "no source is in two splits",
         "split the footage by source, not by clip", column="leaked_source")
    rule(gxe.ExpectColumnValuesToBeNull, "no clip is in two splits", "remove the copies from the footage",
         column="leaked_sha256")
    rule(gxe.ExpectColumnValuesToBeUnique, "no clip is there twice", "remove the copies from the footage",
         column="sha256")
    rule(gxe.ExpectColumnValuesToBeInSet, "the pixels are those that were written", again, column="intact",
         value_set=[True], where="checked == True")
    rule(between, "every clip moves", "leave still shots out, or lower validate_clips.change_min",
         column="change", min_value=config.change_min)
    rule(between, "no clip is blank", "leave blank shots out, or lower validate_clips.contrast_min",
         column="contrast", min_value=config.contrast_min)
    fit = "correct or leave out these clips, or lower validate_clips.blur_psnr_min"
    if response:
        fit = f"the response curve '{response}' fits the blur better: set blur.exposure.response to it"
    for noisy, bound in ((False, config.blur_psnr_min), (True, config.blur_psnr_min_noisy)):
        rule(between, f"a blurry image is the mean of its frames within {bound:g} dB"
             + (" (clips with recorded noise)" if noisy else ""), fit, column="blur_psnr", min_value=bound,
             where=f"held == True and noisy == {noisy}")
    rule(between, "a camera's own blur is the mean of its frames", fit, enforced=False, column="blur_psnr",
         min_value=config.blur_psnr_min, where='blur == "captured"')
    return rules


def _figures(table: pandas.DataFrame, clips: ClipStore, response: str) -> dict[str, Any]:
    return {
        "clips": len(table), "content hash": clips.sha256, "sharp frames a clip": clips.frames,
        **{f"{split} clips": int(table[f"is_{split}"].sum()) for split in SPLITS},
        "sizes": ", ".join(sorted(table["array"].unique())),
        "sources": int(table["source"].nunique()),
        "categories": ", ".join(sorted(table["category"].unique())),
        "clips whose pixels were checked": int(table["checked"].sum()),
        "motion, median px": float(table["motion"].median()),
        "motion, least and most px": f"{table['motion'].min():.2f}, {table['motion'].max():.2f}",
        "recorded response": ", ".join(sorted(table["response"].unique())),
        "response that fits better": response or "none",
        **{f"blur PSNR with {name}, mean dB": float(table[f"psnr_{name}"].mean()) for name in RESPONSES},
    }
