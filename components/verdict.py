"""The outcome of a validation gate: a verdict as JSON, a readable page, and an error that says what to do.

Takes the plain dictionaries that Great Expectations returns and imports nothing of it. An expectation's
``meta`` carries ``{"rule": place in the list, "says": the rule in words, "remedy": what mends it}``.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypercut_core.errors import DataRejected
from hypercut_core.files import write_json, write_text

if TYPE_CHECKING:
    import pandas

MOST_ROWS = 20  # failing rows that a verdict lists; all are counted


@dataclass(frozen=True)
class Check:
    """One rule, whether the data keep it, and the rows that do not."""

    says: str
    remedy: str
    expectation: str
    passed: bool
    failing: int  # rows that break the rule
    rows: tuple[str, ...]  # the first of them, as "name: value"
    observed: str  # what was found, for rules about the whole table
    enforced: bool = True  # False: reported only


@dataclass(frozen=True)
class Verdict:
    """All checks of one gate, with a few figures about the data."""

    gate: str  # name of the step
    subject: str  # what was looked at, in words
    checks: tuple[Check, ...]
    figures: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return all(check.passed or not check.enforced for check in self.checks)


def leaks(table: pandas.DataFrame, column: str) -> pandas.Series:
    """For rows whose `column` value occurs in more than one split: 'value in test, train'; else None."""
    splits = {value: sorted(set(group)) for value, group in table.groupby(column)["split"]}
    return table[column].map(lambda value: f"{str(value)[:40]} is in {', '.join(splits[value])}"
                             if len(splits.get(value, ())) > 1 else None).astype(object)


def checks_of(results: Mapping[str, Any], key: str) -> tuple[Check, ...]:
    """The checks in a validation result (`to_json_dict()`), in the order of their rules.

    Args:
        results: with ``unexpected_index_column_names=[key]`` in its result format.
        key: the column that names a row.
    """
    entries = sorted(results["results"], key=lambda entry: entry["expectation_config"]["meta"]["rule"])
    return tuple(_check(entry, key) for entry in entries)


def deliver(verdict: Verdict, where: str | Path, out: Path, report: Path) -> None:
    """Write verdict and page, then raise if a rule is broken.

    Raises:
        DataRejected: names the rules, the rows and the remedy; both files are written by then.
    """
    write_json(out, {"gate": verdict.gate, "passed": verdict.passed, "figures": dict(verdict.figures),
                     "checks": [asdict(check) for check in verdict.checks]})
    write_text(report, page(verdict))
    broken = [check for check in verdict.checks if check.enforced and not check.passed]
    if broken:
        what = "; ".join(f"{check.says} – broken by {_culprits(check)}" for check in broken)
        cures = dict.fromkeys(check.remedy for check in broken if check.remedy)
        raise DataRejected(f"{verdict.gate} says no: {what}", where=where,
                           remedy=f"{'; '.join(cures)} (all details: {report})")


def page(verdict: Verdict) -> str:
    """One HTML page without scripts, styles or pictures from elsewhere."""
    word = "accepted" if verdict.passed else "rejected"
    figures = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>"
                      for name, value in verdict.figures.items())
    rows = "".join(_row(check) for check in verdict.checks)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">
<title>{_text(verdict.gate)}: {word}</title>
<style>
 body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
        color: #1d2430; background: #fff }}
 table {{ border-collapse: collapse; width: 100%; margin: 1rem 0 }}
 th, td {{ text-align: left; vertical-align: top; padding: .4rem .7rem; border-bottom: 1px solid #dde1e7 }}
 .accepted {{ color: #14692f }} .rejected {{ color: #a51d1d }} .reported {{ color: #8a5a00 }}
 td.mark {{ white-space: nowrap; font-weight: 600 }} small, li {{ color: #535d6c; overflow-wrap: anywhere }}
</style></head><body>
<h1>{_text(verdict.gate)}: <span class="{word}">{word}</span></h1>
<p>{_text(verdict.subject)}</p>
<table>{figures}</table>
<table><tr><th></th><th>Rule</th><th>Found</th></tr>{rows}</table>
</body></html>
"""


def _check(entry: Mapping[str, Any], key: str) -> Check:
    config, result = entry["expectation_config"], entry["result"]
    meta = config["meta"]
    value_of = config["kwargs"].get("column")
    rows = []
    for row in result.get("unexpected_index_list") or []:
        text = str(row[key])
        if value_of in row and value_of != key:
            value = row[value_of]
            text += f": {value:.4g}" if isinstance(value, float) else f": {value}"
        if text not in rows:
            rows.append(text)
    return Check(says=meta["says"], remedy=meta.get("remedy", ""), expectation=config["type"],
                 passed=bool(entry["success"]), failing=int(result.get("unexpected_count", 0)),
                 rows=tuple(rows[:MOST_ROWS]), observed=_observed(entry), enforced=meta.get("enforced", True))


def _observed(entry: Mapping[str, Any]) -> str:
    raised = entry.get("exception_info", {})
    reasons = [raised] if "raised_exception" in raised else list(raised.values())
    for reason in reasons:
        if reason.get("raised_exception"):
            return str(reason["exception_message"]).strip().split("\n")[0]
    value = entry["result"].get("observed_value", "")
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _culprits(check: Check) -> str:
    if not check.rows:
        return f"what was found: {check.observed or check.failing}"
    more = check.failing - min(3, len(check.rows))
    return ", ".join(check.rows[:3]) + (f" and {more} more" if more > 0 else "")


def _row(check: Check) -> str:
    mark, style = ("kept", "accepted") if check.passed else ("BROKEN", "rejected") if check.enforced \
        else ("noted", "reported")
    found = _text(check.observed)
    if not check.passed and check.rows:
        items: Sequence[str] = [f"<li>{_text(row)}</li>" for row in check.rows]
        found = f"{check.failing} of the rows:<ul>{''.join(items)}</ul>"
    cure = f"<br><small>{_text(check.remedy)}</small>" if check.remedy and not check.passed else ""
    return f'<tr><td class="mark {style}">{mark}</td><td>{_text(check.says)}{cure}</td><td>{found}</td></tr>'


def _text(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.6g}"
    return html.escape(str(value))
