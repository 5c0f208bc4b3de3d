"""Job results as data: a frozen dataclass per job, with numbers as numbers. Only ``words`` turns it into text for people.

A field is shown under its own name. Fields without a value for this run are None, False or empty, and are not shown.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from w2w.shown import without_secrets
from w2w.stage import Counts


@dataclass(frozen=True)
class Figure:
    """A measured value, with its 95 % interval and sample size if known."""

    value: float
    low: float | None = None
    high: float | None = None
    num: int | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any], num: int | None = None) -> "Figure":
        """The figure in a row of METRICS_SCHEMA."""
        return cls(row["value"], row["ci_low"], row["ci_high"], num)

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval}" + ("" if self.num is None else f" of {self.num:,}")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What every job reports about its run; each job's result adds fields."""

    job: str
    run_id: str
    counts: Counts = field(default_factory=Counts)
    """Rows in and out, and rejects by code."""
    seconds: float = 0.0
    versions: dict[str, int] = field(default_factory=dict)
    """Of the tables that were written."""
    of_those_rejected: list[str] = field(default_factory=list)
    """Of each code how many, one of them, and why."""
    skipped: int = 0
    """Rows that were done before this run."""
    dry_run: bool = False

    OF_ROWS: ClassVar[bool] = True  # it takes rows in and gives rows; else their numbers are not shown

    @property
    def rows_per_s(self) -> float:
        return self.counts.read / self.seconds if self.seconds else 0.0

    def __rich__(self) -> Any:
        """The table that is printed at a job's end."""
        from rich.table import Table

        title = f"{self.job}{' (dry run: nothing was done)' if self.dry_run else ''}"
        table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
        table.add_column()
        table.add_column(overflow="fold")  # a path is meant to be copied whole
        counts, rows = self.counts, [("run", self.run_id)]
        if not self.dry_run:
            rows += [*self._of_rows(), *([("seconds", f"{self.seconds:,.1f}")] if self.seconds else [])]
            rows += [("rows/s", f"{self.rows_per_s:,.1f}")] if self.OF_ROWS and counts.read else []
            rows += [(f"table {name}", f"version {v}") for name, v in self.versions.items()]
        for name, text in [*rows, *words(self).items()]:
            table.add_row(name, text)
        return table

    def _of_rows(self) -> list[tuple[str, str]]:
        """What the table says of rows: nothing where there were none."""
        counts = self.counts
        if not self.OF_ROWS or not (counts.read or self.skipped):
            return []
        said = [("rows in", f"{counts.read:,}"), ("rows out", f"{counts.out:,}"), ("rejects", f"{counts.rejected:,}")]
        said += [(f"  {code}", f"{n:,}") for code, n in sorted(counts.rejects.items(), key=lambda kv: -kv[1])]
        said += [("already done", f"{self.skipped:,}")]
        return said + [(f"rows through {name}", f"{n:,}") for name, n in counts.stages.items()]


_COMMON = {f.name for f in fields(Summary)} - {"of_those_rejected"}


def words(result: Summary) -> dict[str, str]:
    """The fields special to this job: label -> text. Several figures get a line each."""
    said: dict[str, str] = {}
    for name in (f.name for f in fields(result) if f.name not in _COMMON and f.repr):
        value, label = getattr(result, name), name.replace("_", " ")
        if name == "more":
            said |= {key: _text(more) for key, more in value.items()}
        elif isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            said |= {f"{label}, {key}": _inner(inner) for key, inner in value.items()}
        elif isinstance(value, dict) and all(isinstance(v, Figure) for v in value.values()):
            said |= {key if name == "figures" else f"{key}, {label}": str(figure) for key, figure in value.items()}
        elif value is True or isinstance(value, Figure) or _is_number(value) or (value and not isinstance(value, Summary)):
            said[label] = _text(value)
    return said


def _inner(value: dict) -> str:
    """Counts as a dict of counts is shown; other values after their names."""
    if all(map(_is_number, value.values())):
        return _text(value)
    return "; ".join(f"{k}: {_inner(v) if isinstance(v, dict) else _text(v)}" for k, v in value.items())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_text(v)} {k}" for k, v in value.items())
    if isinstance(value, list | tuple):
        texts = [_text(one) for one in value]
        return ("; " if any(" " in text for text in texts) else ", ").join(texts)  # sentences have commas of their own
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def to_json(result: Summary | None, **more: object) -> bytes:
    """The result's fields, and ``more``, as a JSON object; NaN and infinity become null, and secrets are hidden."""
    return json.dumps(_plain(without_secrets((asdict(result) if result else {}) | more)), indent=1).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
