"""The leaderboard: every model evaluated by a protocol on the same data, best first; and two models compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from w2w import schema
from w2w.evaluation.compare import Gain
from w2w.evaluation.protocols import PROTOCOLS
from w2w.report.evaluation import Failure
from w2w.report.page import write_page


@dataclass(frozen=True)
class Board:
    """Models on one set: for each the rows of table `evaluations` over all queries, from its runs, oldest first."""

    protocol: str
    source: str
    split: str
    data_digest: str
    models: Sequence[Sequence[dict]]


def leaderboard_page(out: str, boards: Sequence[Board]) -> None:
    """Writes the page to ``out``. Models are sorted by the first figure; of two results of one model the newer counts."""
    shown = []
    for board in boards:
        newest = [{(r[schema.METRIC], r[schema.K]): r for r in rows} for rows in board.models]
        columns = list(dict.fromkeys(column for found in newest for column in found))
        newest.sort(key=lambda found: -found[columns[0]][schema.VALUE] if columns[0] in found else 1.0)
        best = {c: max(found[c][schema.VALUE] for found in newest if c in found) for c in columns}
        protocol = PROTOCOLS.get(board.protocol)
        shown.append(
            {
                "title": board.protocol,
                "says": protocol.says if protocol else "A search with known answers.",
                "source": protocol.source if protocol else "",
                "set": board.source,
                "split": board.split,
                "digest": board.data_digest,
                "columns": [f"{metric}@{k}" if k else metric for metric, k in columns],
                "models": [_model(found, columns, best) for found in newest],
            }
        )
    write_page(out, "evaluation/leaderboard.html.j2", title="Leaderboard", boards=shown)


def _model(found: dict[tuple, dict], columns: Sequence[tuple], best: dict[tuple, float]) -> dict:
    one = next(iter(found.values()))
    cells = [(found[c], found[c][schema.VALUE] == best[c]) if c in found else None for c in columns]
    return {
        "name": one[schema.MODEL],
        "version": one[schema.MODEL_VERSION],
        "num": max(r[schema.NUM_QUERIES] for r in found.values()),
        "date": one[schema.EVALUATED_AT].strftime("%Y-%m-%d"),
        "cells": cells,
    }


def compare_page(
    out: str,
    verdict: str,
    worse: bool,
    names: tuple[str, str],
    facts: Mapping[str, object],
    gains: Sequence[Gain],
    lost_and_won: tuple[Sequence[tuple[Failure, Failure]], Sequence[tuple[Failure, Failure]]],
) -> None:
    """Writes the page to ``out``. ``lost_and_won``: each query as answered by A and by B."""
    tables: dict[str, list[Gain]] = {}
    for gain in gains:
        tables.setdefault(gain.metric, []).append(gain)
    parts = list(zip(("What B answers worse than A", "What B answers better than A"), lost_and_won))
    a, b = names
    told = {"verdict": verdict, "worse": worse, "a": a, "b": b, "facts": facts, "tables": tables, "parts": parts}
    write_page(out, "evaluation/compare.html.j2", title="Two models compared", **told)
