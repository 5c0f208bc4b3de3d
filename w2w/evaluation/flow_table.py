"""Table `evaluations`: figures are added once, and read as a leaderboard."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.engine.job import Run
from w2w.evaluation.page import Board, leaderboard_page
from w2w.table import delta
from w2w.table.parts import Output
from w2w.table.sink import append_rows

LEADERBOARD = ("reports", "evaluate", "leaderboard.html")
_NAMES = (schema.PROTOCOL, schema.SOURCE, schema.SPLIT, schema.DATA_DIGEST, schema.MODEL, schema.MODEL_VERSION)


@dataclass(frozen=True)
class Measured:
    """The figures of one model under one protocol: ``metrics`` is METRICS_SCHEMA."""

    protocol: str
    source: str
    split: str
    data_digest: str
    model: str
    model_version: str
    metrics: pa.Table


def add(run: Run, measured: Measured, seed: int, inputs: Sequence[schema.Table]) -> dict[str, int]:
    """Appends the new figures; returns {table: new version} if there were any."""
    told = [getattr(measured, name) for name in _NAMES]
    rows = [row for row in measured.metrics.to_pylist() if math.isfinite(row["value"])]
    # the model's name and the time are not part of a figure's identity
    keys = [
        ids.digest(
            [v for name, v in zip(_NAMES, told) if name != schema.MODEL], seed, row["group"], row["metric"], row["k"], length=32
        )
        for row in rows
    ]
    opened = delta.open_table(run.store, schema.EVALUATIONS)
    known = delta.read(run.store, schema.EVALUATIONS, [schema.EVALUATION_ID], protocol=measured.protocol) if opened else None
    there = set(known.column(0).to_pylist()) if known else set()
    now = datetime.now(UTC)
    made = [
        dict(zip(_NAMES, told)) | row | {schema.EVALUATION_ID: key, schema.EVALUATED_AT: now, schema.RUN_ID: run.run_id}
        for key, row in zip(keys, rows)
        if key not in there
    ]
    if not made:
        return {}
    table = pa.Table.from_pylist(made, schema=schema.EVALUATIONS.schema)
    lineage = run.lineage(measured.model_version, inputs, "evaluate")
    return append_rows(run.store, Output(schema.EVALUATIONS), table, lineage)


def write_leaderboard(store: str) -> str | None:
    """The page of all evaluations, a section per protocol and data set; returns its path, or None if there are none."""
    if delta.open_table(store, schema.EVALUATIONS) is None:
        return None
    rows = delta.read(store, schema.EVALUATIONS, schema.EVALUATIONS.schema.names)
    rows = rows.filter(pc.is_null(rows.column(schema.GROUP))).sort_by(schema.EVALUATED_AT)
    boards: dict[tuple[str, str, str, str], dict[str, list[dict]]] = {}
    for row in rows.to_pylist():
        of = (row[schema.PROTOCOL], row[schema.SOURCE], row[schema.SPLIT], row[schema.DATA_DIGEST])
        boards.setdefault(of, {}).setdefault(row[schema.MODEL_VERSION], []).append(row)
    page = storage.join(store, *LEADERBOARD)
    leaderboard_page(page, [Board(*of, list(models.values())) for of, models in sorted(boards.items())])
    return page
