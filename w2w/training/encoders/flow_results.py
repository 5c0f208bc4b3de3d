"""Evaluating an encoder before and after its training: figures for the summary, as JSON and as a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from w2w import storage
from w2w.metrics.retrieval import ALL, evaluate, gain
from w2w.models.config import EncoderConfig
from w2w.results import Figure
from w2w.training.encoders.flow import PairTable, measure_pairs
from w2w.training.encoders.flow_shown import changed
from w2w.training.encoders.pairs import FIGURES, KS
from w2w.training.page import Curve, Figures, encoder_report

_SEED = 0  # of the intervals


def measure(
    table: PairTable,
    base: EncoderConfig,
    model: Path,
    most: int,
    history: Sequence[dict],
    facts: Mapping[str, object],
    out: Path,
) -> dict[str, Any]:
    """Evaluates ``base`` and the encoder in ``model`` on test pairs; writes metrics.json and report.html to ``out``.

    Returns fields of the job's result: figures after and before, and the gain with its paired interval.
    """
    trained = replace(base, name=str(model), revision=None)
    both = measure_pairs(table, [base, trained], most, base.threads)
    names, num_pictures, relevant = both[0].names_Q, both[0].num_pictures, [one.relevant_QK for one in both]
    found = {}
    for when, relevant_QK in zip(("before", "after"), relevant):
        measured = evaluate(relevant_QK, np.ones(len(names), int), names, KS, np.random.default_rng(_SEED))
        found[when] = [r for r in measured.to_pylist() if r["metric"] != "nDCG"]
    found["gain"] = gain(relevant[0], relevant[1], names, KS, np.random.default_rng(_SEED)).to_pylist()
    rows = [r | {"when": when} for when, measured in found.items() for r in measured]
    storage.write_bytes(str(out / "metrics.json"), json.dumps(rows, indent=1).encode())
    values = {(r["group"], _name(r), r["when"]): r for r in rows}
    before, after, gained = ({m: Figure.of(values[ALL, m, when]) for m in FIGURES} for when in found)
    shown = {m: f"{before[m].value:.3f} → {after[m].value:.3f}" for m in FIGURES}
    shown |= {"test pairs evaluated": f"{len(names):,}", "pictures in the gallery": f"{num_pictures:,}"}
    groups = list(dict.fromkeys(r["group"] for r in rows))
    tables = [Figures(when, FIGURES, [_row(g, when, values) for g in groups]) for when in found]
    page = str(out / "report.html")
    changes = changed(table, *both)
    encoder_report(page, f"Encoder trained from {_called(base.name)}", shown, facts, _charts(history), tables, changes)
    measured = {"pairs_measured": len(names), "gallery_pictures": num_pictures}
    return {"figures": after, "before": before, "gain": gained, **measured, "report": page}


def _row(group: str | None, when: str, values: dict) -> tuple[str | None, int, list[dict]]:
    cells = [values[group, m, when] for m in FIGURES]
    return group, cells[0]["num_queries"], cells


def _called(name: str) -> str:
    """A page's name for an encoder: of a path, only the folder's name."""
    return Path(name).name if Path(name).is_absolute() else name


def _name(row: dict) -> str:
    return f"Recall@{row['k']}" if row["metric"] == "recall" else row["metric"]


def _charts(history: Sequence[dict]) -> dict[str, list[Curve]]:
    measured = [h for h in history if "val" in h]
    losses = history[0]["losses"] if history else {}
    return {
        "Loss": [Curve(n, [(h["step"], h["losses"][n]) for h in history]) for n in losses],
        "On the held-out pairs": [Curve(m, [(h["step"], h["val"][m]) for h in measured]) for m in FIGURES],
    }
