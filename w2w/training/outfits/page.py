"""The page of outfit scorers: worn against modified outfits, with histograms of similarity, shares by threshold, figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from w2w.report.page import write_page
from w2w.training.page import Curve, charts

_BINS = 40
_CHART = (520, 150)  # width and height
_PRINTED = ("printed_original", "printed_modified", "printed_pair")


@dataclass(frozen=True)
class PublishedTable:
    """What2Wear's evaluation of an encoder's vectors (training/outfits/measure.py, ``Published``): rows of ``threshold`` and
    shares, the shares printed there by threshold, and what its outfit-to-modified plot shows."""

    rows: Sequence[Mapping[str, float]]
    printed: Mapping[float, Sequence[float]]
    pair: np.ndarray
    kept: float


@dataclass(frozen=True)
class Judged:
    """One scorer: its figures, similarities of worn and of modified outfits (cosines, or probabilities if ``probability``), and
    their shares by threshold from training/outfits/measure.py; ``published``: the printed figures, for comparison."""

    name: str
    says: str
    figures: Mapping[str, float]
    worn: np.ndarray
    modified: np.ndarray
    by_threshold: Sequence[Mapping[str, float]]
    probability: bool = False
    published: PublishedTable | None = None


def compatibility_report(
    out: str,
    title: str,
    notes: Sequence[str],
    facts: Mapping[str, object],
    judged: Sequence[Judged],
    curves: Mapping[str, Sequence[Curve]] = MappingProxyType({}),
) -> None:
    """Writes the page to ``out``. ``notes``: paragraphs at its head; ``curves``: by the title of their chart."""
    metrics = list(dict.fromkeys(m for j in judged for m in j.figures))
    scorers = [
        {
            "name": j.name,
            "says": j.says,
            "figures": [j.figures.get(m) for m in metrics],
            "chart": _histogram({"modified": j.modified, "worn": j.worn}, 0.0 if j.probability else -1.0),
            "means": [float(v.mean()) if len(v) else None for v in (j.worn, j.modified)],
            "rows": j.by_threshold,
            "scale": "probability of going together" if j.probability else "mean cosine of the three pairs",
            "published": j.published and _published(j.published),
        }
        for j in judged
    ]
    write_page(
        out,
        "training/outfits/page.html.j2",
        title=title,
        notes=notes,
        facts=facts,
        metrics=metrics,
        scorers=scorers,
        charts=charts(curves),
    )


def _published(table: PublishedTable) -> dict:
    rows = [dict(r) | dict(zip(_PRINTED, table.printed.get(r["threshold"], ()))) for r in table.rows]
    return {"rows": rows, "kept": table.kept, "chart": _histogram({"modified": table.pair}, -1.0)}


def _histogram(values: Mapping[str, np.ndarray], low: float) -> dict:
    """An outline for each, over the same bins up to 1, scaled to the largest share."""
    width, height = _CHART
    edges = np.linspace(low, 1, _BINS + 1)
    shares = {name: np.histogram(v, edges)[0] / max(1, len(v)) for name, v in values.items()}
    most = max(float(s.max()) for s in shares.values()) or 1.0
    step = width / _BINS

    def outline(share: np.ndarray) -> str:
        tops = [(i * step, height - 16 - s / most * (height - 24)) for i, s in enumerate(share)]
        corners = [p for x, y in tops for p in ((x, y), (x + step, y))]
        floor = height - 16
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in [(0, floor), *corners, (width, floor)])

    outlines = {name: outline(share) for name, share in shares.items()}
    return {"width": width, "height": height, "outlines": outlines, "low": low, "most": most}
