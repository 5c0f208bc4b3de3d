"""Measuring an encoder before and after its training: figures for the summary, as JSON and as a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from w2w import storage
from w2w.metrics.retrieval import ALL, evaluate, gain
from w2w.models.config import EncoderConfig
from w2w.training.encoders.flow import PairTable, measure_pairs
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
) -> dict[str, object]:
    """Measures ``base`` and the encoder in ``model`` on test pairs; writes metrics.json and report.html to ``out``.

    Returns the figures for the summary: before -> after, each with its 95 % interval, and the gain with its paired one.
    """
    trained = replace(base, name=str(model), revision=None)
    relevant, names, num_pictures = measure_pairs(table, [base, trained], most, base.threads)
    found = {}
    for when, relevant_QK in zip(("before", "after"), relevant):
        measured = evaluate(relevant_QK, np.ones(len(names), int), names, KS, np.random.default_rng(_SEED))
        found[when] = [r for r in measured.to_pylist() if r["metric"] != "nDCG"]
    found["gain"] = gain(relevant[0], relevant[1], names, KS, np.random.default_rng(_SEED)).to_pylist()
    rows = [r | {"when": when} for when, measured in found.items() for r in measured]
    storage.write_bytes(str(out / "metrics.json"), json.dumps(rows, indent=1).encode())
    values = {(r["group"], _name(r), r["when"]): r for r in rows}
    before, after, gained = ({m: _said(values[ALL, m, when]) for m in FIGURES} for when in found)
    figures = {m: f"{before[m]} -> {after[m]}, gain {gained[m]}" for m in FIGURES}
    shown = {m: " → ".join(f"{values[ALL, m, when]['value']:.3f}" for when in ("before", "after")) for m in FIGURES}
    measured_on = {"test pairs measured": f"{len(names):,}", "pictures of the gallery": f"{num_pictures:,}"}
    groups = list(dict.fromkeys(r["group"] for r in rows))
    tables = [Figures(when, FIGURES, [_row(g, when, values) for g in groups]) for when in found]
    page = str(out / "report.html")
    encoder_report(page, f"Encoder {model.name}", shown | measured_on, facts, _charts(history), tables)
    return {**figures, **measured_on, "report": page}


def _row(group: str | None, when: str, values: dict) -> tuple[str, int, list[dict]]:
    cells = [values[group, m, when] for m in FIGURES]
    return group, cells[0]["num_queries"], cells


def _name(row: dict) -> str:
    return f"Recall@{row['k']}" if row["metric"] == "recall" else row["metric"]


def _said(row: dict) -> str:
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def _charts(history: Sequence[dict]) -> dict[str, list[Curve]]:
    measured = [h for h in history if "val" in h]
    losses = history[0]["losses"] if history else {}
    return {
        "Loss": [Curve(n, [(h["step"], h["losses"][n]) for h in history]) for n in losses],
        "On the pairs held out": [Curve(m, [(h["step"], h["val"][m]) for h in measured]) for m in FIGURES],
    }
