"""validate-footage: is the list of footage whole, usable, and split by source? Great Expectations decides."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.verdict import Verdict, checks_of, deliver, leaks
from hypercut_core.errors import DataRejected, MissingExtra
from hypercut_core.files import read_json

if TYPE_CHECKING:
    import pandas

SPLITS = ("train", "val", "test")
KINDS = ("photo", "video", "frames", "paired")
WORDS = ("source", "uri", "kind", "sha256", "category", "licence", "split")
NUMBERS = ("width", "height", "fps", "frames")


@dataclass(frozen=True)
class ValidateFootageConfig:
    """What footage must be like to be used."""

    sources_min: int = 2  # fewest sources; training and test need one each
    side_min: int = 64  # shortest side of a source, px
    side_max: int = 8192  # longest side of a source, px
    frames_min: int = 7  # fewest frames of a video or frame folder
    fps_min: float = 1.0  # lowest frame rate of a video, frames a second
    fps_max: float = 1000.0  # highest frame rate of a video, frames a second
    problems_share_max: float = 0.1  # greatest share of files that could not be read (footage.on_bad: skip)
    licence_required: bool = False  # refuse sources whose licence is unknown, instead of noting it


def validate_footage(manifest: Path, config: ValidateFootageConfig, out: Path, report: Path) -> None:
    """Check a footage manifest; writes the verdict to `out` (JSON) and `report` (HTML).

    Raises:
        DataRejected: a rule is broken (both files are written first), or this is no manifest.
        StorageError: the manifest cannot be read.  MissingExtra: great_expectations is not installed.
    """
    content = read_json(manifest)
    table = _table(content, manifest)
    problems = [problem for problem in content.get("problems") or [] if isinstance(problem, dict)]
    table["problems_share"] = len(problems) / max(1, len(table) + len(problems))
    checks = checks_of(_validate(table, config), key="source")
    figures = {"sources": len(table), "kind": content.get("kind", ""), "layout": content.get("layout", ""),
               "revision": content.get("revision", ""), "unreadable files": len(problems),
               **{f"{split} sources": int((table["split"] == split).sum()) for split in SPLITS}}
    for place, problem in enumerate(problems[:20], start=1):
        figures[f"problem {place}"] = f"{problem.get('file', '?')}: {problem.get('what', '?')}"
    deliver(Verdict("validate-footage", f"Footage manifest {manifest.name}", checks, figures),
            manifest, out, report)


def _table(content: Any, manifest: Path) -> pandas.DataFrame:
    import pandas

    sources = content.get("sources") if isinstance(content, dict) else None
    if not isinstance(sources, list) or not all(isinstance(row, dict) for row in sources):
        raise DataRejected("this is not a footage manifest (it has no list 'sources')", where=manifest,
                           remedy="run 'hypercut collect-footage' again")
    columns = [*WORDS, *NUMBERS]
    table = pandas.DataFrame([{name: row.get(name) for name in columns} for row in sources], columns=columns)
    for name in NUMBERS:
        table[name] = pandas.to_numeric(table[name], errors="coerce")
    for name in WORDS:
        table[name] = table[name].astype(object).where(table[name].notna() & (table[name] != ""), None)
    table.loc[table["licence"] == "unknown", "licence"] = None
    for name in ("source", "sha256"):
        table[f"leaked_{name}"] = leaks(table, name)
    return table


def _validate(table: pandas.DataFrame, config: ValidateFootageConfig) -> dict[str, Any]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # before the import: it reads it then
    try:
        import great_expectations as gx
    except ImportError as error:
        raise MissingExtra("great-expectations", "validation") from error
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    batch = (context.data_sources.add_pandas("memory").add_dataframe_asset("sources")
             .add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table}))
    suite = gx.ExpectationSuite(name="footage", expectations=_rules(config))
    outcome = batch.validate(suite, result_format={"result_format": "COMPLETE",
                                                   "unexpected_index_column_names": ["source"]})
    return outcome.to_json_dict()


def _rules(config: ValidateFootageConfig) -> list[Any]:
    from great_expectations import expectations as gxe

    rules: list[Any] = []

    def rule(kind: Any, says: str, remedy: str, enforced: bool = True, **kwargs: Any) -> None:
        meta = {"rule": len(rules), "says": says, "remedy": remedy, "enforced": enforced}
        rules.append(kind(meta=meta, **kwargs))

    between, one_of, filled = (gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToBeInSet,
                               gxe.ExpectColumnValuesToNotBeNull)
    again, copies = "run 'hypercut collect-footage' again", "remove the copies, then collect again"
    moving: dict[str, Any] = {"row_condition": 'kind.isin(["video", "frames"])', "condition_parser": "pandas"}
    rule(gxe.ExpectTableRowCountToBeBetween, f"there are at least {config.sources_min} sources",
         "add footage, or lower validate_footage.sources_min", min_value=config.sources_min)
    for name in ("source", "uri", "kind", "sha256", "category", "split"):
        rule(filled, f"every source has its '{name}'", again, column=name)
    rule(gxe.ExpectColumnValuesToBeUnique, "every source is listed once", copies, column="source")
    rule(gxe.ExpectColumnValuesToMatchRegex, "checksums are SHA-256", again, column="sha256",
         regex="^[0-9a-f]{64}$")
    rule(one_of, f"kinds are {', '.join(KINDS)}", again, column="kind", value_set=list(KINDS))
    rule(one_of, "splits are train, val, test", again, column="split", value_set=list(SPLITS))
    rule(gxe.ExpectColumnDistinctValuesToContainSet, "there is footage to train on and footage to test on",
         "add footage: at least three sources are needed for train, val and test", column="split",
         value_set=["train", "test"])
    for side in ("width", "height"):
        rule(between, f"{side}s are {config.side_min} to {config.side_max} px",
             "leave these sources out, or change validate_footage.side_min or side_max", column=side,
             min_value=config.side_min, max_value=config.side_max)
    rule(between, f"videos have at least {config.frames_min} frames",
         "leave these sources out, or lower validate_footage.frames_min", column="frames",
         min_value=config.frames_min, **moving)
    rule(between, f"frame rates are {config.fps_min:g} to {config.fps_max:g} a second",
         "correct the files' frame rate, or change validate_footage.fps_min or fps_max", column="fps",
         min_value=config.fps_min, max_value=config.fps_max, **moving)
    rule(gxe.ExpectColumnValuesToBeNull, "no source is in two splits", copies, column="leaked_source")
    rule(gxe.ExpectColumnValuesToBeNull, "no two splits hold the same file", copies, column="leaked_sha256")
    rule(gxe.ExpectColumnMaxToBeBetween, f"at most {config.problems_share_max:.0%} of files are unreadable",
         "mend or remove the files listed in the report, or raise validate_footage.problems_share_max",
         column="problems_share", max_value=config.problems_share_max)
    rule(filled, "every source names its licence", "set footage.licence", column="licence",
         enforced=config.licence_required)
    return rules
