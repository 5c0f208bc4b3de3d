"""Queries with their pictures and the products found for them, as rows of a page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.evaluation.flow import pictures_of
from w2w.evaluation.rules import OWNER, Ranked
from w2w.report.cards import CARD_PX, RIGHT_MARK, Card, product_card, ranked
from w2w.report.evaluation import Failure
from w2w.report.page import data_uri, small, thumbnail, tiled
from w2w.table.current import current_products
from w2w.table.pending import lookup
from w2w.training.outfits.flow import Asked

_HITS = 6  # shown per query
_ON_CARDS = (schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL)


def worst(ranked: Ranked, hits_QK: np.ndarray, count: int = 10) -> np.ndarray:
    """The worst queries: by the rank of the first hit, worst first, then by the score of the mistake; none whose nearest is a
    hit."""
    first_Q = np.where(hits_QK.any(axis=1), hits_QK.argmax(axis=1), hits_QK.shape[1])
    nearest_Q = ranked.scores_QK[:, 0] if ranked.scores_QK.shape[1] else np.zeros(len(ranked))
    wrong = np.flatnonzero(first_Q > 0)
    return wrong[np.lexsort((-nearest_Q[wrong], -first_Q[wrong]))][:count]


@dataclass(frozen=True)
class Seen:
    """A gallery picture on a page; ``rank`` 0: the right answer, not found among the first."""

    image: str
    rank: int
    score: float
    right: bool


class Shown:
    """Pictures and products of some queries and their results, read once for all sides of a comparison."""

    def __init__(self, store: str, crops: bool, queries: Sequence[str], found: Sequence[str]):
        """``queries``: garments where ``crops``, else images; ``found``: images."""
        self._asked = dict(pictures_of(store, pa.array(sorted(set(queries)), pa.string()), crops))
        images = pa.array(sorted(set(found) - {""}), pa.string())
        self._pictures = dict(pictures_of(store, images, crops=False))
        rows = current_products(store, [*_ON_CARDS, schema.IMAGE_ID])
        rows = rows.filter(pc.is_in(rows.column(schema.IMAGE_ID), value_set=images))
        self._about: dict[str, dict[str, Any]] = {row[schema.IMAGE_ID]: row for row in reversed(rows.to_pylist())}

    def row(self, query: str, label: str, said: str, found: Sequence[Seen]) -> Failure:
        """``found``: best first, as in ``hits_of``."""
        cards = [self._card(one) for one in found]
        return Failure(query, label, thumbnail(self._asked.get(query), CARD_PX), said, cards)

    def outfit(self, query: str, label: str, said: str, items: Sequence[str], found: Sequence[Seen]) -> Failure:
        """As ``row``; the query is an outfit, drawn as its pictures side by side."""
        seen = [picture for item in items if (data := self._pictures.get(item)) and (picture := small(data, CARD_PX))]
        return Failure(query, label, data_uri(tiled(seen, CARD_PX)) if seen else None, said, [self._card(one) for one in found])

    def _card(self, one: Seen) -> Card:
        about: Mapping[str, Any] = self._about.get(one.image, {schema.PRODUCT_ID: one.image})
        notes = ranked(one.rank, one.score) if one.rank else ()
        return product_card(about, self._pictures.get(one.image), RIGHT_MARK if one.right else "", notes)


def hits_of(ranked: Ranked, hits_QK: np.ndarray, sought_Q: np.ndarray, query: int) -> list[Seen]:
    """A query's results; if no hit is among the first, they are preceded by the right answer."""
    at = ranked.found_QK[query][:_HITS]
    at = at[at >= 0]
    names = ranked.gallery.column(OWNER)
    images, scores = names.take(pa.array(at)).to_pylist(), ranked.scores_QK[query].tolist()
    found = [Seen(i, n + 1, scores[n], bool(hits_QK[query, n])) for n, i in enumerate(images)]
    if any(one.right for one in found) or sought_Q[query] < 0:
        return found
    return [Seen(names[int(sought_Q[query])].as_py(), 0, 0.0, True), *found[: _HITS - 1]]


def worst_rows(
    store: str, crops: bool, ranked: Ranked, hits_QK: np.ndarray, sought_Q: np.ndarray, said: Callable[[int], str]
) -> list[Failure]:
    """The ten worst-answered queries."""
    chosen = worst(ranked, hits_QK).tolist()
    found = {q: hits_of(ranked, hits_QK, sought_Q, q) for q in chosen}
    names = ranked.queries.column(OWNER).to_pylist()
    shown = Shown(store, crops, [names[q] for q in chosen], [one.image for seen in found.values() for one in seen])
    return [shown.row(names[q], str(ranked.groups_Q[q]), said(q), found[q]) for q in chosen]


def worst_blanks(store: str, catalog: str, asked: Asked, scores_QA: np.ndarray, count: int = 10) -> list[Failure]:
    """The questions to fill in the blank that were answered worst: the right answer lies furthest below the best. Each with the
    outfit that is asked for, and its answers, the best first."""
    if not len(asked.blanks):
        return []
    lost_Q = scores_QA.max(axis=1) - scores_QA[np.arange(len(scores_QA)), asked.blanks.right_Q]
    chosen = [q for q in np.argsort(-lost_Q, kind="stable")[:count].tolist() if lost_Q[q] > 0]
    columns = [schema.QUESTION_ID, schema.ITEMS, schema.ANSWERS]
    wanted = pa.array([asked.blank_ids[q] for q in chosen], pa.string())
    found = lookup(store, schema.QUESTIONS, wanted, columns, source=catalog).to_pylist()
    rows = {row[schema.QUESTION_ID]: row for row in found}
    items = [item for row in found for item in (*row[schema.ITEMS], *row[schema.ANSWERS])]
    shown = Shown(store, False, [], [item[schema.IMAGE_ID] for item in items])
    failures = []
    for q in chosen:
        row, right = rows[asked.blank_ids[q]], int(asked.blanks.right_Q[q])
        order = np.argsort(-scores_QA[q], kind="stable").tolist()
        answers = [(n, row[schema.ANSWERS][n]) for n in order if n < len(row[schema.ANSWERS])]
        hits = [
            Seen(item[schema.IMAGE_ID], rank, float(scores_QA[q, n]), n == right) for rank, (n, item) in enumerate(answers, 1)
        ]
        rank = 1 + order.index(right)
        label = " + ".join(item[schema.SLOT] for item in row[schema.ITEMS])
        said = f"the right {row[schema.ANSWERS][right][schema.SLOT]} comes at place {rank} of {len(hits)}"
        failures.append(shown.outfit(asked.blank_ids[q], label, said, [i[schema.IMAGE_ID] for i in row[schema.ITEMS]], hits))
    return failures
