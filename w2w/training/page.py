"""Report pages of training: curves and figures; for a detector, photos with boxes as well."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from w2w.garments.page import COLOURS, Seen, colours_of, draw, legend_of
from w2w.report.evaluation import Failure
from w2w.report.page import data_uri, write_page

_CHART = (560, 180)  # width and height
_MARGIN = 34
_LABEL_PX = 15
_NAME = 40  # characters of a line's name at its end


@dataclass(frozen=True)
class Curve:
    """A line over steps: (step, value)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Figures:
    """A table: rows of (group or None for all, number of queries, a METRICS_SCHEMA row for each of ``measures``)."""

    name: str
    measures: Sequence[str]
    rows: Sequence[tuple[str | None, int, Sequence[dict]]]


def charts_of(history: Sequence[dict]) -> dict[str, list[Curve]]:
    """From the figures of the training loop: the losses, and AP on the held-out photos."""
    losses = history[0]["losses"] if history else {}
    measured = [h for h in history if "val" in h]
    return {
        "Loss": [Curve(n, [(h["step"], h["losses"][n]) for h in history]) for n in losses],
        "Average precision on the held-out photos": [
            Curve(m, [(h["step"], h["val"][m]) for h in measured]) for m in ("mAP", "AP50", "AP75")
        ],
    }


def charts(curves: Mapping[str, Sequence[Curve]]) -> list[dict]:
    """Input of the template charts.html.j2: those ``curves``, by title, that have any line."""
    return [_chart(name, _different(lines)) for name, lines in curves.items() if any(len(c.points) > 1 for c in lines)]


def _different(lines: Sequence[Curve]) -> list[Curve]:
    """Distinct lines: a single loss is also the sum of all."""
    return list({tuple(map(tuple, c.points)): c for c in reversed(lines)}.values())[::-1]


def detector_report(
    out: str,
    title: str,
    headline: Mapping[str, object],
    facts: Mapping[str, object],
    curves: Mapping[str, Sequence[Curve]],
    table: pa.Table,
    photos: Sequence[Seen],
) -> None:
    """Writes the page to ``out``. ``table``: AP_SCHEMA of metrics/detection.py; ``curves``: by the title of their chart."""
    colours = colours_of({b.category for p in photos for b in p.boxes})
    pictures = [(photo, picture) for photo in photos if (picture := draw(photo, colours))]
    write_page(
        out,
        "training/detectors/page.html.j2",
        title=title,
        headline=headline,
        facts=facts,
        charts=charts(curves),
        sources=_sources(table),
        photos=[(photo.image_id, data_uri(picture), legend_of(photo, colours)) for photo, picture in pictures],
    )


def encoder_report(
    out: str,
    title: str,
    headline: Mapping[str, object],
    facts: Mapping[str, object],
    curves: Mapping[str, Sequence[Curve]],
    tables: Sequence[Figures],
    changes: tuple[Sequence[tuple[Failure, Failure]], Sequence[tuple[Failure, Failure]]] = ((), ()),
) -> None:
    """Writes the page to ``out``. ``tables``: before, after and gain, of the same measures and groups; ``changes``: pairs that
    got worse and that got better, each as it was answered before and after."""
    rows = [
        (name, count, [_change(*cells) for cells in zip(before, after, gain)])
        for (name, count, before), (_, _, after), (_, _, gain) in zip(*(t.rows for t in tables))
    ]
    rows.sort(key=lambda row: (row[0] is not None, row[2][0]["gain"]))
    worse = [(name, cells[0]) for name, _, cells in rows if name is not None and cells[0]["gain"] < 0]
    write_page(
        out,
        "training/encoders/page.html.j2",
        title=title,
        headline=headline,
        facts=facts,
        charts=charts(curves),
        measures=tables[0].measures,
        rows=rows,
        worse=worse,
        sure=[name for name, cell in worse if cell["high"] < 0],
        changes=[
            (f"What got {how}, pair by pair: {len(some)}", some) for how, some in zip(("worse", "better"), changes) if some
        ],
    )


def _change(before: dict, after: dict, gain: dict) -> dict:
    named = {"gain": gain["value"], "low": gain["ci_low"], "high": gain["ci_high"]}
    return {"before": before["value"], "after": after["value"]} | named


def _sources(table: pa.Table) -> list[dict]:
    """One table per source: a row per class, a column per metric."""
    rows = table.to_pylist()
    metrics = list(dict.fromkeys(r["metric"] for r in rows))
    result = []
    for source in dict.fromkeys(r["source"] for r in rows):
        classes: dict[str, dict] = {}
        for r in rows:
            if r["source"] == source:
                classes.setdefault(r["category"], {"truths": r["num_truths"]})[r["metric"]] = r["value"]
        cells = [(name, found["truths"], [found.get(m) for m in metrics]) for name, found in classes.items()]
        result.append({"name": source, "metrics": metrics, "rows": cells})
    return result


def _chart(name: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """Polylines in pixels, and the numbers at the axes' ends."""
    width, height = _CHART
    xs = [x for c in curves for x, _ in c.points]
    ys = [y for c in curves for _, y in c.points]
    left, right, most = min(xs), max(xs), max(max(ys), 1e-9)

    def place(x: float, y: float) -> str:
        across = (x - left) / max(right - left, 1e-9)
        return f"{_MARGIN + across * (width - _MARGIN - 4):.1f},{(height - 16) - y / most * (height - 24):.1f}"

    lines: list[dict[str, Any]] = [
        {
            "name": c.name,
            "points": " ".join(place(*p) for p in c.points),
            "colour": COLOURS[i % len(COLOURS)],
            "last": c.points[-1][1],
            "label_y": float(place(*c.points[-1]).partition(",")[2]) + 4,
        }
        for i, c in enumerate(curves)
        if c.points
    ]
    lines.sort(key=lambda line: line["label_y"])
    for above, line in pairwise(lines):  # labels at the lines' ends, without overlaps
        line["label_y"] = max(line["label_y"], above["label_y"] + _LABEL_PX)
    over = max(0.0, lines[-1]["label_y"] - (height - 16))
    for line in lines:
        line["label_y"] -= over
    return {
        "name": name,
        "left": _MARGIN,
        "width": width,
        "height": height,
        "name_length": _NAME,
        "label_px": 24 + 8 * max(min(len(line["name"]), _NAME) + 6 for line in lines),
        "lines": lines,
        "most": most,
        "first": int(left),
        "last": int(right),
    }
