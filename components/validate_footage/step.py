"""validate-footage: is the list of footage whole, usable, and split by source? Great Expectations decides."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.verdict import Verdict, checks_of, deliver
from hypercut_core.errors import DataRejected, MissingExtra
from hypercut_core.files import read_json

if TYPE_CHECKING:
    import pandas

SPLITS = ("train", "val", "test")
KINDS = ("photo", "video", "frames", "paired")
COLUMNS = ("source", "uri", "kind", "sha256", "width", "height", "fps", "frames", "category", "licence", "split")


@dataclass(frozen=True)
class ValidateFootageConfig:
    """What footage must be like to be used."""

    sources_min: int = 2  # fewest sources; training and test need one each
    side_min: int = 64  # shortest side of a source, px
    side_max: int = 8192  # longest side of a source, px
    frames_min: int = 7  # fewest frames of a video or frame folder
    fps_min: float = 1.0  # lowest frame rate of a video, frames a second
    fps_max: float = 1000.0  # highest frame rate of a video, frames a second
    problems_max: int = 0  # most unreadable files that are tolerated
    licence_required: bool = True  # every source must name its licence


def validate_footage(manifest: Path, config: ValidateFootageConfig, out: Path, report: Path) -> None:
    """Check a footage manifest; writes the verdict to `out` (JSON) and `report` (HTML).

    Raises:
        DataRejected: a rule is broken (both files are written first), or this is no manifest.
        StorageError: the manifest cannot be read.  MissingExtra: great_expectations is not installed.
    """
    content = read_json(manifest)
    table = _table(content, manifest)
    problems = content.get("problems", [])
    checks = checks_of(_validate(table, config, len(problems)), key="source")
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
    table = pandas.DataFrame([{name: row.get(name) for name in COLUMNS} for row in sources], columns=list(COLUMNS))
    for name in ("width", "height", "fps", "frames"):
        table[name] = pandas.to_numeric(table[name], errors="coerce")
    for name in ("source", "uri", "kind", "sha256", "category", "licence", "split"):
        table[name] = table[name].astype(object).where(table[name].notna() & (table[name] != ""), None)
    # how many splits hold the same source, or the same bytes: more than one is a leak
    for name in ("source", "sha256"):
        table[f"splits_of_{name}"] = table.groupby(name)["split"].transform("nunique")
    return table


def _validate(table: pandas.DataFrame, config: ValidateFootageConfig, problems: int) -> dict[str, Any]:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # before the import: it reads it then
    try:
        import great_expectations as gx
    except ImportError as error:
        raise MissingExtra("great-expectations", "validation") from error
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    table = table.assign(problems=problems)
    batch = (context.data_sources.add_pandas("memory").add_dataframe_asset("sources")
             .add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table}))
    suite = gx.ExpectationSuite(name="footage", expectations=_rules(config))
    outcome = batch.validate(suite, result_format={"result_format": "COMPLETE",
                                                   "unexpected_index_column_names": ["source"]})
    return outcome.to_json_dict()


def _rules(config: ValidateFootageConfig) -> list[Any]:
    from great_expectations import expectations as gxe

    rules: list[Any] = []

    def rule(kind: Any, says: str, remedy: str, **kwargs: Any) -> None:
        rules.append(kind(meta={"rule": len(rules), "says": says, "remedy": remedy}, **kwargs))

    moving = {"row_condition": 'kind.isin(["video", "frames"])', "condition_parser": "pandas"}
    rule(gxe.ExpectTableRowCountToBeBetween, f"there are at least {config.sources_min} sources",
         "add footage, or lower validate_footage.sources_min", min_value=config.sources_min)
    for name in ("source", "uri", "kind", "sha256", "category", "split"):
        rule(gxe.ExpectColumnValuesToNotBeNull, f"every source has its '{name}'",
             "run 'hypercut collect-footage' again", column=name)
    rule(gxe.ExpectColumnValuesToBeUnique, "every source is listed once",
         "remove the copies, then collect again", column="source")
    rule(gxe.ExpectColumnValuesToMatchRegex, "checksums are SHA-256", "run 'hypercut collect-footage' again",
         column="sha256", regex="^[0-9a-f]{64}$")
    rule(gxe.ExpectColumnValuesToBeInSet, f"kinds are {', '.join(KINDS)}", "run 'hypercut collect-footage' again",
         column="kind", value_set=list(KINDS))
    rule(gxe.ExpectColumnValuesToBeInSet, "splits are train, val, test", "run 'hypercut collect-footage' again",
         column="split", value_set=list(SPLITS))
    rule(gxe.ExpectColumnDistinctValuesToContainSet, "there is footage to train on and footage to test on",
         "add footage: at least three sources are needed for train, val and test", column="split",
         value_set=["train", "test"])
    for side in ("width", "height"):
        rule(gxe.ExpectColumnValuesToBeBetween, f"{side}s are {config.side_min} to {config.side_max} px",
             "leave these sources out, or change validate_footage.side_min or side_max", column=side,
             min_value=config.side_min, max_value=config.side_max)
    rule(gxe.ExpectColumnValuesToBeBetween, f"videos have at least {config.frames_min} frames",
         "leave these sources out, or lower validate_footage.frames_min", column="frames",
         min_value=config.frames_min, **moving)
    rule(gxe.ExpectColumnValuesToBeBetween, f"frame rates are {config.fps_min:g} to {config.fps_max:g} a second",
         "correct the files' frame rate, or change validate_footage.fps_min or fps_max", column="fps",
         min_value=config.fps_min, max_value=config.fps_max, **moving)
    rule(gxe.ExpectColumnValuesToBeBetween, "no source is in two splits", "give each source one split",
         column="splits_of_source", max_value=1)
    rule(gxe.ExpectColumnValuesToBeBetween, "no two splits hold the same file", "remove the copies, then collect again",
         column="splits_of_sha256", max_value=1)
    rule(gxe.ExpectColumnMaxToBeBetween, f"at most {config.problems_max} files could not be read",
         "mend or remove the files listed in the report, or raise validate_footage.problems_max",
         column="problems", max_value=config.problems_max)
    if config.licence_required:
        rule(gxe.ExpectColumnValuesToNotBeNull, "every source names its licence",
             "set footage.licence, or validate_footage.licence_required to false", column="licence")
    return rules
