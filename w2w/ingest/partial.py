"""What the rows of a feed of changes leave unsaid, from the rows that the store has of their products."""

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import RejectCode
from w2w.ingest.archives import MEMBER
from w2w.ingest.cells import is_cell
from w2w.ingest.images import is_web
from w2w.ingest.normalise import NO_IMAGE, FeedBatch, digest_of
from w2w.ingest.pictures import MORE, MORE_TYPE
from w2w.ingest.raw import ATTRIBUTES_TYPE, TEXTS, reject_table

_AS_THEY_WERE = (schema.TITLE, schema.BRAND, schema.CATEGORY, schema.URL, *TEXTS)
_PRICES = (schema.PRICE, schema.SALE_PRICE, schema.REGULAR_PRICE)
_PICTURES = (schema.IMAGE_ID, schema.IMAGE_URI, schema.IMAGE_FINGERPRINT, schema.IMAGE_LIST)
SAID_BEFORE = schema.PRODUCTS.fields([*_AS_THEY_WERE, *_PRICES, schema.CURRENCY, schema.ATTRIBUTES, *_PICTURES])
Columns = dict[str, pa.Array]


def completed(batch: FeedBatch, last: pa.Table) -> FeedBatch:
    """The batch with what its feed has no column for, and the pictures of rows that name none, as they were.

    ``last``: SAID_BEFORE, row for row; nulls for products that the store does not know. Such a row without a picture is
    rejected.
    """
    new: Columns = {name: batch.rows.column(name).combine_chunks() for name in batch.rows.column_names}
    old: Columns = {name: last.column(name).combine_chunks() for name in SAID_BEFORE.names}
    known = old[schema.IMAGE_ID].is_valid()
    for name in batch.absent & set(_AS_THEY_WERE):
        new[name] = pc.if_else(known, old[name], new[name])
    new |= _priced(new, old, batch.absent)
    new[schema.ATTRIBUTES] = _attributes(new[schema.ATTRIBUTES], old[schema.ATTRIBUTES], batch.names)
    new |= _pictures(new, old, known, schema.IMAGE_LIST in batch.absent)
    new[schema.ROW_DIGEST] = digest_of(new)
    rows = pa.table(new, schema=batch.rows.schema)
    bare = pc.equal(new[schema.IMAGE_URI], "")
    unknown = rows.filter(bare)
    said = zip(*(unknown.column(c).to_pylist() for c in (schema.PRODUCT_ID, schema.SOURCE)))
    rejects = reject_table(
        (product, RejectCode.MISSING_FIELD, f"{NO_IMAGE}, and the store does not know the product", source)
        for product, source in said
    )
    return replace(batch, rows=rows.filter(pc.invert(bare)), rejects=pa.concat_tables([batch.rejects, rejects]))


def _priced(new: Columns, old: Columns, absent: frozenset[str]) -> Columns:
    """Prices and currency. A price alone leaves the sale price, and a sale price alone the price that it reduces."""
    price, sale, regular = (new[name] for name in _PRICES)
    if not absent & {schema.PRICE, schema.SALE_PRICE}:
        return {}
    base = pc.coalesce(old[schema.REGULAR_PRICE], old[schema.PRICE])
    if schema.PRICE not in absent:
        base, sale = price, old[schema.SALE_PRICE]
    elif schema.SALE_PRICE in absent:
        sale = old[schema.SALE_PRICE]
    is_on = pc.fill_null(pc.less(sale, base), False)
    if schema.PRICE in absent:  # a sale price of which nobody knows the price
        is_on = pc.or_(is_on, pc.and_not(sale.is_valid(), base.is_valid()))
    sale, regular = pc.if_else(is_on, sale, None), pc.if_else(is_on, base, None)
    currency = pc.coalesce(new[schema.CURRENCY], old[schema.CURRENCY] if schema.CURRENCY in absent else new[schema.CURRENCY])
    return dict(zip((*_PRICES, schema.CURRENCY), (pc.coalesce(sale, base), sale, regular, currency)))


def _attributes(new: pa.Array, old: pa.Array, names: Sequence[str]) -> pa.Array:
    """Those of the feed, and the others as they were."""
    if not set(pc.unique(old.keys).to_pylist()) - set(names):
        return new
    both = [
        sorted(({k: v for k, v in before or [] if k not in names} | dict(now or [])).items())
        for now, before in zip(new.to_pylist(), old.to_pylist())
    ]
    return pa.array(both, ATTRIBUTES_TYPE)


def _pictures(new: Columns, old: Columns, known: pa.Array, one_alone: bool) -> Columns:
    """The pictures; where a row names no front picture, that of its product. ``one_alone``: the feed has no list of them."""
    uris, fingerprints, lists = (new[c].to_pylist() for c in (schema.IMAGE_URI, schema.IMAGE_FINGERPRINT, MORE))
    last = zip(*(old[c].to_pylist() for c in (schema.IMAGE_URI, schema.IMAGE_FINGERPRINT, schema.IMAGE_LIST)))
    for row, (has, (uri, fingerprint, images)) in enumerate(zip(known.to_pylist(), last)):
        if not has:
            continue
        bare = uris[row] == ""
        if bare and not (MEMBER in uri or is_cell(uri)):  # what lies in an archive or a table is not found again by its name
            uris[row], fingerprints[row] = uri, _known(uri, fingerprint)
        if lists[row] is None and (bare or one_alone):
            more = [one for one in images or [] if one[schema.POSITION] > 1 and one[schema.URI] != uris[row]]
            lists[row] = [_listed(one) for one in more] or None
    return {
        schema.IMAGE_URI: pa.array(uris, pa.string()),
        schema.IMAGE_FINGERPRINT: pa.array(fingerprints, pa.string()),
        MORE: pa.array(lists, MORE_TYPE),
    }


def _listed(one: dict) -> dict:
    return {c: one[c] for c in (schema.URI, schema.ROLE)} | {
        schema.FINGERPRINT: _known(one[schema.URI], one[schema.FINGERPRINT])
    }


def _known(uri: str, fingerprint: str | None) -> str:
    """The fingerprint that a feed's reader gives to a picture."""
    return "" if is_web(uri) else fingerprint or ""
