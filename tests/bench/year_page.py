"""The page of a year of nights: figures by night as charts, with what happened in them, and what differed."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from w2w import storage
from w2w.report import page

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _LABEL_PX = 1000, 180, 56, 34, 150
_LEAST_S = 0.002  # a peer that had nothing to do
_COLOURS = ("var(--accent)", "#b8862b", "#5a8f5a", "#8a6bb0")
_MOST_SHOWN = 100  # differences
Series = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    name: str
    colour: str
    points: tuple[str, ...]  # of each stretch without a gap
    last: str
    label_y: float


@dataclass(frozen=True)
class Chart:
    name: str
    said: str
    lines: tuple[Line, ...]
    ticks: tuple[tuple[float, str], ...]  # y, text


def write(out: Path, rows: Sequence[Any], peers: dict[str, list[dict] | str], result: dict[str, Any]) -> None:
    """``rows``: ``tests.bench.year.Row`` of each night; ``peers``: as of ``year_peers.measure``; ``result``: the JSON."""
    numbers = [row.number for row in rows]
    theirs = {name: {r["number"]: r for r in some} for name, some in peers.items() if not isinstance(some, str)}

    def of_peers(figure: str, scale: float = 1) -> dict[str, Series]:
        return {name: [scale * some[n][figure] if n in some else None for n in numbers] for name, some in theirs.items()}

    def ours(figure: str, scale: float = 1) -> Series:
        return [None if getattr(row, figure) is None else scale * getattr(row, figure) for row in rows]

    index = [row.index_seconds or None for row in rows]
    peers_s = {name: [v if v and v > _LEAST_S else None for v in some] for name, some in of_peers("seconds").items()}
    charts = [
        _chart("Recall@10", "of 32 queries, against exact search of the pictures that the shop has", numbers,
               {"w2w": ours("recall"), "w2w IVF8,SQ4": ours("approximate"), **of_peers("recall")}, least=0.5),
        _chart("Answers that changed", "share of last night's answers that are gone", numbers, {"w2w": ours("changed")}),
        _chart("Products not served as the shop has them", "broken pictures, nights that failed, and withdrawals that wait",
               numbers, {"products": ours("stale"), "nights of the oldest": ours("age")}),
        _chart("Seconds of a night", "w2w: the whole night; index: its step alone; the others: their index alone", numbers,
               {"w2w": ours("seconds"), "w2w index": index, **peers_s}, log=True),
        _chart("Bytes on disk, MB", "w2w: all tables with their history, pictures, indexes, exports, pages", numbers,
               {"w2w": ours("bytes", 1e-6), "w2w written": ours("written", 1e-6), **of_peers("bytes", 1e-6)}, log=True),
        _chart("Products and pictures", "on sale", numbers, {"products": ours("products"), "pictures": ours("pictures")}),
    ]  # fmt: skip
    values = {
        "title": "A year of nights",
        "charts": charts,
        "marks": _marks(rows),
        "bands": _bands(rows),
        "months": [(_x(n, numbers), f"night {n}") for n in numbers if n % 30 == 0 and n < numbers[-1] - 10],
        "tiles": _tiles(rows, result),
        "differences": [(row.number, one) for row in rows for one in row.differences][:_MOST_SHOWN],
        "faults": Counter(row.fault for row in rows if row.fault),
        "changes": sum((Counter(row.changes) for row in rows), Counter()),
        "skipped": {name: some for name, some in peers.items() if isinstance(some, str)},
        "reader": result["reader"],
        "size": {"width": _WIDTH, "height": _HEIGHT, "left": _LEFT, "bottom": _BOTTOM, "label": _LABEL_PX},
    }
    loaders = [jinja2.FileSystemLoader(Path(__file__).parent), page._environment.loader]
    environment = page._environment.overlay(loader=jinja2.ChoiceLoader([one for one in loaders if one]))
    storage.write_bytes(str(out.absolute()), environment.get_template("year.html.j2").render(**values).encode())


def _tiles(rows: Sequence[Any], result: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Figure, what it is, whether it is bad."""
    reader = result["reader"]
    wrong = reader.get("errors", 0) + reader.get("wrong", 0)
    failed = sum(bool(row.error) for row in rows)
    return [
        (f"{len(rows):,}", "nights", False),
        (f"{result['value']:,}", "differences from a store made from scratch", result["value"] > 0),
        (f"{result['crashes']:,}", "nights in which the driver died", False),
        (f"{failed:,}", "nights that the supplier has spoilt", False),
        (f"{wrong:,}", f"errors and wrong answers in {reader.get('searches', 0):,} searches meanwhile", wrong > 0),
    ]


def _x(number: int, numbers: Sequence[int]) -> float:
    span = max(1, numbers[-1] - numbers[0])
    return round(_LEFT + (number - numbers[0]) / span * (_WIDTH - _LEFT - 8), 1)


def _chart(
    name: str, said: str, numbers: Sequence[int], lines: dict[str, Series], least: float = 0.0, log: bool = False
) -> Chart:
    known = [v for series in lines.values() for v in series if v is not None and (v > 0 or not log)]
    top = max(known, default=1.0) or 1.0
    low = min(known, default=0.1) if log else min(least, min(known, default=0.0))
    low, top = (10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(top))) if log else (low, top)

    def y(value: float) -> float:
        share = (math.log(value / low) / math.log(top / low)) if log else (value - low) / ((top - low) or 1)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - 12), 1)

    drawn = []
    for n, (label, series) in enumerate(lines.items()):
        stretches: list[list[str]] = [[]]
        for number, value in zip(numbers, series, strict=True):
            if value is None or (log and value <= 0):
                stretches.append([])
            else:
                stretches[-1].append(f"{_x(number, numbers)},{y(value)}")
        last = [v for v in series if v is not None and (v > 0 or not log)]
        at = y(last[-1]) if last else _HEIGHT / 2
        points = tuple(" ".join(s if len(s) > 1 else s * 2) for s in stretches if s)
        drawn.append(Line(label, _COLOURS[n % len(_COLOURS)], points, _number(last[-1]) if last else "", at))
    ticks = [10**e for e in range(round(math.log10(low)), round(math.log10(top)) + 1)] if log else [low, (low + top) / 2, top]
    return Chart(name, said, tuple(_apart(drawn)), tuple((y(t), _number(t)) for t in ticks))


def _apart(lines: list[Line]) -> list[Line]:
    """Labels that do not lie on each other."""
    placed, least = [], 12.0
    for line in sorted(lines, key=lambda one: one.label_y):
        least = max(line.label_y + 4, least)
        placed.append(Line(line.name, line.colour, line.points, line.last, least))
        least += 15
    over = max(0.0, least - 15 - (_HEIGHT - _BOTTOM + 4))
    return [Line(one.name, one.colour, one.points, one.last, round(one.label_y - over, 1)) for one in placed]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _marks(rows: Sequence[Any]) -> list[tuple[float, str, str]]:
    """x, kind and text of what happened."""
    numbers = [row.number for row in rows]
    marks = [(_x(row.number, numbers), "crash", f"night {row.number}: the driver died") for row in rows if row.crashed]
    return marks + [(_x(row.number, numbers), "fault", f"night {row.number}: {row.fault}") for row in rows if row.fault]


def _bands(rows: Sequence[Any]) -> list[tuple[float, float]]:
    """From where to where nights were served over a bridge."""
    numbers, some = [row.number for row in rows], [row.number for row in rows if row.upgrade]
    return [(_x(some[0], numbers), _x(some[-1], numbers) - _x(some[0], numbers))] if some else []
