"""What vectors say of products: those in a wrong category, and values of the feed that a tagger's heads contradict."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.check import rules
from w2w.check.classes import Classes, Judged
from w2w.check.kinds import FOUND, Seen
from w2w.check.rules_values import Compared, findings, own_meaning
from w2w.engine.shuffle import list_vectors, to_matrix
from w2w.errors import UsageError
from w2w.mining.catalog import chosen_version
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.table import delta
from w2w.training.tags.heads import Head
from w2w.training.tags.job import find_tagger

GIVEN = "given "  # and an attribute: a column of products with the feed's values
_BATCH_ROWS = 2048  # vectors read at once: 21 MB at 1280 dimensions


@dataclass(frozen=True)
class Known:
    """The store's tagger: its name, the name of its encoder and the version of its vectors, and its heads by attribute."""

    tagger: str
    encoder: str
    model: str
    heads: dict[str, Head]


def model_of(store: str, asked: str) -> str | None:
    """``chosen_version``; for auto, where the last commit names no model, the one with the most vectors."""
    if asked != "auto":
        return chosen_version(store, schema.EMBEDDINGS, asked, "encoder")
    counts: Counter[str] = Counter()
    for part in delta.parts(delta.open_table(store, schema.EMBEDDINGS)):
        counts[dict(part.partition)[schema.MODEL_VERSION]] += part.rows
    newest = delta.newest_version(store, schema.EMBEDDINGS)
    return newest if newest in counts else max(counts, key=lambda version: counts[version], default=None)


def known_tagger(store: str) -> Known | str:
    """By default w2w's own; or why it cannot be asked. Categories are told by ``wrong_categories``."""
    try:
        name, tagger, encoder, _ = find_tagger(store, "", EncoderConfig())
    except UsageError as e:
        return str(e)
    heads = {attribute: head for attribute, head in tagger.heads.items() if attribute != schema.CATEGORY}
    return Known(name, encoder.name, model_version(encoder), heads)


def wrong_categories(store: str, goods: pa.Table, version: str | None) -> Seen:
    """``version``: whose vectors are asked, if any."""
    kind = "wrong_category"
    if version is None:
        return Seen(FOUND.empty_table(), {kind: "it needs vectors: run 'w2w embed'"})
    names = rules.judged_categories(goods)
    codes = pc.index_in(goods.column(schema.CATEGORY), value_set=pa.array(names, pa.string()))
    codes_N = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False)
    vectors = list_vectors(store, version)
    row_N = vectors.find(pc.fill_null(goods.column(schema.IMAGE_ID), ""))
    some = np.flatnonzero((codes_N >= 0) & (row_N >= 0))
    if not names:
        return Seen(FOUND.empty_table(), {kind: "no two categories have 20 products"})
    if not len(some):
        return Seen(FOUND.empty_table(), {kind: "no product has a vector of that encoder: run 'w2w embed'"})
    some = some[np.argsort(row_N[some], kind="stable")]
    classes = Classes(len(names))
    for at, vectors_ND in _blocks(store, vectors.parts, row_N[some]):
        classes.add(vectors_ND, codes_N[some[at]])
    if not classes.products:
        return Seen(FOUND.empty_table(), {kind: "the vectors have NaN or infinity: run 'w2w embed' with another encoder"})
    solved, judged = classes.solve(), Judged(codes_N[some], len(names))
    for at, vectors_ND in _blocks(store, vectors.parts, row_N[some]):
        judged.add(solved, at, vectors_ND)
    rows = goods.take(pa.array(some))
    return Seen(rules.contradicted(rows, names, judged.other_N, judged.margin_N, judged.deviations()))


def wrong_values(store: str, goods: pa.Table, tagger: Known | str) -> Seen:
    """``goods``: with a column of GIVEN for each of the tagger's attributes; ``tagger``: or why there is none."""
    kind, none = "wrong_value", FOUND.empty_table()
    if isinstance(tagger, str):
        return Seen(none, {kind: tagger})
    compared = {attribute: Compared(head, goods.column(GIVEN + attribute)) for attribute, head in tagger.heads.items()}
    asked_N = np.logical_or.reduce([np.zeros(goods.num_rows, bool), *(one.asked_N for one in compared.values())])
    if not asked_N.any():
        words = ", ".join(compared) or "no attribute but the category"
        return Seen(none, {kind: f"the feed says nothing in the words of tagger {tagger.tagger} ({words}): 'w2w tag --learn'"})
    vectors = list_vectors(store, tagger.model)
    row_N = vectors.find(pc.fill_null(goods.column(schema.IMAGE_ID), ""))
    some = np.flatnonzero(asked_N & (row_N >= 0))
    if not len(some):
        why = f"it needs vectors of {tagger.encoder}, which tagger {tagger.tagger} reads: run 'w2w embed' with that encoder"
        return Seen(none, {kind: f"{why}, or teach a tagger on yours with 'w2w tag --learn'"})
    some = some[np.argsort(row_N[some], kind="stable")]
    for at, vectors_ND in _blocks(store, vectors.parts, row_N[some]):
        for one in compared.values():
            mine = one.asked_N[some[at]]
            one.add(some[at][mine], vectors_ND[mine])
    found = {attribute: one.contradicted() for attribute, one in compared.items()}
    told = [findings(goods, attribute, goods.column(GIVEN + attribute), one) for attribute, one in found.items()]
    why = own_meaning({attribute: one.own_meaning for attribute, one in found.items()})
    return Seen(pa.concat_tables([none, *told]), partly={kind: why} if why else {})


def _blocks(store: str, parts: Sequence[delta.Part], row_N: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions in ``row_N`` (sorted), and their vectors, float32 (N, D); those with NaN or infinity are left out."""
    start = 0
    for batch in delta.read_batches(store, schema.EMBEDDINGS, [schema.VECTOR], parts, _BATCH_ROWS):
        low, high = np.searchsorted(row_N, [start, start + batch.num_rows])
        if low < high:
            vectors_ND = to_matrix(batch.column(0).combine_chunks().take(pa.array(row_N[low:high] - start)))
            good = np.isfinite(vectors_ND).all(axis=1)
            if good.any():
                yield np.arange(low, high)[good], vectors_ND[good]
        start += batch.num_rows
