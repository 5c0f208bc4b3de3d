"""The test pairs whose answer changes with an encoder's training, with their pictures."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.report.cards import CARD_PX, RIGHT_MARK, product_card
from w2w.report.evaluation import Failure
from w2w.report.page import thumbnail
from w2w.table.current import current_products
from w2w.training.encoders.flow import Measured, PairTable

_MOST = 10  # pairs of each kind
_ABOUT = (schema.PRODUCT_ID, schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL, schema.IMAGE_ID)
Two = tuple[Failure, Failure]


def changed(table: PairTable, before: Measured, after: Measured) -> tuple[list[Two], list[Two]]:
    """The pairs that got worse and those that got better, at most ten of each, by the reciprocal rank of the first right
    picture, largest change first: each as answered before and after."""
    ranks = [np.where(m.relevant_QK.any(1), m.relevant_QK.argmax(1) + 1, 0) for m in (before, after)]
    change_Q = np.subtract(*(np.divide(1.0, r, out=np.zeros(len(r)), where=r > 0) for r in ranks[::-1]))
    order = np.argsort(change_Q, kind="stable")
    worse, better = order[change_Q[order] < 0][:_MOST].tolist(), order[::-1][change_Q[order[::-1]] > 0][:_MOST].tolist()
    chosen = [*worse, *better]
    images = {image for m in (before, after) for q in chosen for image in (*m.found[q], m.sought[q])}
    crops = _pictures(table, schema.GARMENTS, [before.garments[q] for q in chosen], schema.CROP)
    pictures = _pictures(table, schema.IMAGES, sorted(images), schema.BYTES)
    about = _by_image(current_products(table.store, _ABOUT), images)

    def answered(measured: Measured, ranks_Q: np.ndarray, when: str, q: int) -> Failure:
        rank, k = int(ranks_Q[q]), measured.relevant_QK.shape[1]
        said = f"{when}: first right picture at rank {rank}" if rank else f"{when}: none among the first {k}"
        shown = list(zip(measured.found[q], measured.relevant_QK[q].tolist()))
        if not any(right for _, right in shown):  # the right answer precedes what was found
            shown = [(measured.sought[q], True), *shown[:-1]]
        cards = [
            product_card(about.get(image, {schema.PRODUCT_ID: image}), pictures.get(image), RIGHT_MARK if right else "")
            for image, right in shown
        ]
        photo = thumbnail(crops.get(measured.garments[q]), CARD_PX)
        return Failure(measured.garments[q], str(measured.names_Q[q]), photo, said, cards)

    rows = [(answered(before, ranks[0], "before", q), answered(after, ranks[1], "after", q)) for q in chosen]
    return rows[: len(worse)], rows[len(worse) :]


def _pictures(table: PairTable, kind: schema.Table, keys: Sequence[str], column: str) -> dict[str, bytes]:
    found = table.lookup(kind, pa.chunked_array([sorted(set(keys))], pa.string()), (kind.key[0], column))
    return {key: data for batch in found for key, data in zip(*(c.to_pylist() for c in batch.columns))}


def _by_image(products: pa.Table, images: set[str]) -> dict[str, dict]:
    """Of several products with one picture, the first by id."""
    among = pc.is_in(products.column(schema.IMAGE_ID), value_set=pa.array(sorted(images), pa.string()))
    return {row[schema.IMAGE_ID]: row for row in reversed(products.filter(among).to_pylist())}
