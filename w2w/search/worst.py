"""The queries with the worst answers, with their pictures."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.report.cards import CARD_PX, RIGHT_MARK, Card, product_card, ranked
from w2w.report.evaluation import Failure
from w2w.report.page import thumbnail
from w2w.search.pictures import ON_CARDS, Found, truth_keys
from w2w.table.current import current_products
from w2w.table.pending import values_by_key

_FOUND = 6  # products shown per query


def worst_queries(
    found: Found,
    match: Sequence[str],
    relevant_QK: np.ndarray,
    num_relevant_Q: np.ndarray,
    pictures: Callable[[set[str]], dict[str, bytes]],
    count: int = 10,
) -> list[Failure]:
    """At most ``count`` queries whose nearest product is wrong though the catalog has a right one: sorted by the rank of the
    first right answer, worst first, then by the score. ``relevant_QK`` and ``num_relevant_Q``: from ``relevance`` for this
    ``match``."""
    rows = _rows(found)
    first_Q = np.where(relevant_QK.any(1), relevant_QK.argmax(1), relevant_QK.shape[1])
    wrong = np.flatnonzero((num_relevant_Q > 0) & (first_Q > 0))
    chosen = wrong[np.lexsort((-_nearest(rows)[wrong], -first_Q[wrong]))][:count]
    late = relevant_QK.shape[1]
    said = [f"found at rank {rank + 1}" if rank < late else f"not among the first {late}" for rank in first_Q[chosen].tolist()]
    return _failures(found, rows.take(pa.array(chosen)), said, relevant_QK[chosen], match, pictures)


def worst_classes(
    found: Found,
    predicted_Q: np.ndarray,
    relevant_QK: np.ndarray,
    num_relevant_Q: np.ndarray,
    pictures: Callable[[set[str]], dict[str, bytes]],
    count: int = 10,
) -> list[Failure]:
    """At most ``count`` queries that are taken for another class though the catalog has theirs, those with the nearest product
    first. ``relevant_QK`` and ``num_relevant_Q``: of ``relevance`` by category."""
    rows = _rows(found)
    truth_Q = np.asarray(rows.column(schema.CATEGORY).to_pylist(), dtype=object)
    wrong = np.flatnonzero((num_relevant_Q > 0) & (predicted_Q != truth_Q))
    chosen = wrong[np.argsort(-_nearest(rows)[wrong], kind="stable")][:count]
    said = [f"taken for {name or 'nothing'}" for name in predicted_Q[chosen]]
    return _failures(found, rows.take(pa.array(chosen)), said, relevant_QK[chosen], (), pictures)


def _rows(found: Found) -> pa.Table:
    """By query_id, as ``relevance`` has them."""
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.NEIGHBOUR_LIST]
    return pa.concat_tables([schema.NEIGHBOURS.empty(columns), *found.read(columns)]).sort_by(schema.QUERY_ID)


def _nearest(rows: pa.Table) -> np.ndarray:
    """Score of each query's nearest product; -1 where there is none."""
    return np.array([hits[0][schema.SCORE] if hits else -1.0 for hits in rows.column(schema.NEIGHBOUR_LIST).to_pylist()])


def _failures(
    found: Found,
    rows: pa.Table,
    said: Sequence[str],
    relevant_QK: np.ndarray,
    match: Sequence[str],
    pictures: Callable[[set[str]], dict[str, bytes]],
) -> list[Failure]:
    """Queries with what was found; where ``match`` names something, what was sought stands before it."""
    wanted = truth_keys(rows, match)
    products = current_products(
        found.store, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.ACTIVE, *ON_CARDS]
    )
    keys = truth_keys(products, match)
    sought = {
        key: n
        for n, (key, on) in enumerate(zip(keys, products.column(schema.ACTIVE).to_pylist()))
        if on and key and key in wanted
    }
    queries = [row | {schema.NEIGHBOUR_LIST: row[schema.NEIGHBOUR_LIST][:_FOUND]} for row in rows.to_pylist()]
    hits = [hit for row in queries for hit in row[schema.NEIGHBOUR_LIST]]
    among = pc.is_in(products.column(schema.PRODUCT_ID), value_set=pa.array([h[schema.PRODUCT_ID] for h in hits], pa.string()))
    about = {row[schema.PRODUCT_ID]: row for row in products.filter(among).to_pylist()}
    rights = {key: products.slice(n, 1).to_pylist()[0] for key, n in sought.items()}
    of_cards = [r[schema.IMAGE_ID] for r in (*hits, *rights.values())]
    images = values_by_key(found.store, schema.IMAGES, of_cards, schema.BYTES)
    photos = pictures({row[schema.QUERY_ID] for row in queries})

    def card(hit: dict, is_right: bool) -> Card:
        row = about.get(hit[schema.PRODUCT_ID], {schema.PRODUCT_ID: hit[schema.PRODUCT_ID]})
        notes = ranked(hit[schema.RANK], hit[schema.SCORE])
        return product_card(row, images.get(hit[schema.IMAGE_ID]), RIGHT_MARK if is_right else "", notes)

    failures = []
    for row, key, says, relevant_K in zip(queries, wanted, said, relevant_QK):
        cards = [card(*hit) for hit in zip(row[schema.NEIGHBOUR_LIST], relevant_K.tolist())]
        right = rights.get(key) if key else None
        shown = right and product_card(right, images.get(right[schema.IMAGE_ID]), "sought", [says])
        photo = thumbnail(photos.get(row[schema.QUERY_ID]), CARD_PX)
        failures.append(Failure(row[schema.QUERY_ID], row[schema.CATEGORY], photo, says, [*([shown] if shown else []), *cards]))
    return failures
