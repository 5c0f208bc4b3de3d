"""The page of the experiments of "Clothing Recommendation" on a network: pairs classified, products retrieved, and examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from w2w.report.page import data_uri, write_page
from w2w.training.page import Curve, charts


@dataclass(frozen=True)
class Found:
    """``pairs``: rows of experiment 1, by ``of``: precision, recall, F1, accuracy and, if known, the confusion matrix. ``top``:
    rows of experiments 2 and 3: of, products, k, value and, if known, ci_low and ci_high. ``shown``: photos, each with the
    best-scoring products and whether they are correct; ``drawn``: the pictures generated from these photos."""

    pairs: Sequence[Mapping]
    top: Sequence[Mapping]
    shown: Sequence[tuple[np.ndarray, Sequence[tuple[np.ndarray, bool]]]]
    drawn: Sequence[np.ndarray]


def lookbook_report(
    out: str,
    title: str,
    note: str,
    headline: Mapping[str, object],
    facts: Mapping[str, object],
    curves: Mapping[str, Sequence[Curve]],
    found: Found,
) -> None:
    """Writes the page to ``out``."""
    tops: dict[int, dict[str, list[Mapping]]] = {}
    for row in found.top:
        tops.setdefault(row["products"], {}).setdefault(row["of"], []).append(row)
    write_page(
        out,
        "training/lookbook/page.html.j2",
        title=title,
        note=note,
        headline=headline,
        facts=facts,
        pairs=found.pairs,
        tops=dict(sorted(tops.items())),
        rows=[
            {
                "photo": _uri(photo),
                "drawn": _uri(found.drawn[i]) if i < len(found.drawn) else None,
                "products": [(_uri(p), right) for p, right in products],
            }
            for i, (photo, products) in enumerate(found.shown)
        ],
        charts=charts(curves),
    )


def _uri(picture: np.ndarray) -> str:
    return data_uri(Image.fromarray(picture))
