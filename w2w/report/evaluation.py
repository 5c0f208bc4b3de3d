"""Metrics with their intervals, a section per protocol, confusion matrices, and the worst-answered queries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from w2w.report.cards import Card
from w2w.report.page import write_page


@dataclass(frozen=True)
class Failure:
    """A badly answered query: its picture as a data URI, a sentence, and what was found, preceded by the right answer if
    known."""

    query_id: str
    label: str
    image: str | None
    said: str
    hits: Sequence[Card] | None


@dataclass(frozen=True)
class Protocol:
    """A way of measuring: its description, its figures (METRICS_SCHEMA), counts (truth x prediction) with their labels.

    ``of``: what is counted; ``over``: the unit that the bootstrap resamples.
    """

    name: str
    description: str
    metrics: pa.Table
    confusion: tuple[np.ndarray, list[str]] | None = None
    of: str = "queries"
    over: str = "queries"
    worst: Sequence[Failure] = ()


def evaluation_report(out: str, title: str, headline: dict[str, str], protocols: list[Protocol]) -> None:
    """Writes the page to ``out``. ``headline``: name -> figure with its interval, as text."""
    sections = []
    for protocol in protocols:
        rows = protocol.metrics.to_pylist()
        columns = list(dict.fromkeys((r["metric"], r["k"]) for r in rows))
        groups: dict[str | None, dict] = {}
        for r in rows:
            groups.setdefault(r["group"], {})[r["metric"], r["k"]] = r
        sections.append(
            {
                "name": protocol.name,
                "description": f"{protocol.description} Intervals: 95 %, bootstrap over {protocol.over}.",
                "of": protocol.of,
                "worst": protocol.worst,
                "columns": [f"{metric}@{k}" if k else metric for metric, k in columns],
                "groups": [(group, [found.get(c) for c in columns]) for group, found in groups.items()],
                "confusion": _confusion(*protocol.confusion) if protocol.confusion else None,
            }
        )
    write_page(out, "report/evaluation.html.j2", title=title, headline=headline, sections=sections)


def _confusion(matrix: np.ndarray, labels: list[str]) -> dict:
    totals = np.maximum(1, matrix.sum(axis=1, keepdims=True))
    shares = matrix / totals
    rows = [
        {"label": label, "cells": [(int(n), float(s)) for n, s in zip(counts, share)]}
        for label, counts, share in zip(labels, matrix, shares)
        if counts.sum()
    ]
    return {"labels": labels, "rows": rows}
