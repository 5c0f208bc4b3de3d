"""What reports need from the tables: neighbours as JSON lines, sampled queries with their pictures, relevance for metrics."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.crawl.fetch import FetchConfig, Fetcher
from w2w.errors import Reject, UsageError
from w2w.ingest.feed import FeedConfig, read_feed
from w2w.ingest.images import load_image
from w2w.ingest.raw import IMAGE_OFFSET, IMAGE_SIZE
from w2w.report.search import Hit, QueryResult, search_report
from w2w.table import delta
from w2w.table.pending import lookup

JSON_FILE, REPORT_FILE = "neighbours.jsonl", "report.html"
_HITS_SHOWN = 8


@dataclass(frozen=True)
class Found:
    """The neighbours of the queries with these keys: one feed's, as it is now. The table has other feeds' queries, and images
    that a query had before."""

    store: str
    search_version: str
    keys: pa.ChunkedArray

    def read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Batches of rows."""
        listed = delta.parts(delta.open_table(self.store, schema.NEIGHBOURS), search_version=self.search_version)
        for rows in delta.read_batches(self.store, schema.NEIGHBOURS, [schema.KEY, *columns], listed, batch_rows=8192):
            yield rows.filter(pc.is_in(rows.column(schema.KEY), value_set=self.keys)).drop_columns([schema.KEY])


def write_neighbours(found: Found, out: str) -> dict[str, str]:
    """OUT/neighbours.jsonl: a line a query, in the order of their ids; returns where it is.

    The lines are held in memory: about 150 bytes a neighbour.
    """
    lines: dict[str, str] = {}
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.NEIGHBOUR_LIST]
    for batch in found.read(columns):
        lines |= {row[schema.QUERY_ID]: json.dumps(row, ensure_ascii=False) for row in batch.to_pylist()}
    text = io.StringIO()
    text.writelines(f"{lines[query]}\n" for query in sorted(lines))
    target = storage.join(out, JSON_FILE)
    storage.write_bytes(target, text.getvalue().encode())
    return {"neighbours": target}


def write_contact_sheet(
    found: Found, out: str, pictures: Callable[[set[str]], dict[str, bytes]], shown: int, facts: dict, match: Sequence[str]
) -> dict[str, str]:
    """OUT/report.html: ``shown`` queries with the products found; returns where it is. ``pictures`` gives queries' own images.

    A product is marked right or wrong by ``match`` (see ``truth_keys``), or by its category where nothing is named and queries
    and products share categories.
    """
    rows, num_queries = _sample(found, shown)
    hits = [hit for row in rows.column(schema.NEIGHBOUR_LIST).to_pylist() for hit in row[:_HITS_SHOWN]]
    products = delta.current_products(found.store, [schema.PRODUCT_ID, schema.TITLE, schema.CATEGORY, schema.ATTRIBUTES])
    found_ids = pa.array(sorted({h[schema.PRODUCT_ID] for h in hits}), pa.string())
    products = products.filter(pc.is_in(products.column(schema.PRODUCT_ID), value_set=found_ids))
    product_ids = products.column(schema.PRODUCT_ID).to_pylist()
    titles = dict(zip(product_ids, products.column(schema.TITLE).to_pylist()))
    shared = set(products.column(schema.CATEGORY).to_pylist()) & set(rows.column(schema.CATEGORY).to_pylist())
    by = list(match) or ([schema.CATEGORY] if shared else [])
    answers = dict(zip(product_ids, truth_keys(products, by).tolist()))
    photos = pictures(set(rows.column(schema.QUERY_ID).to_pylist()))
    thumbnails = _pictures(found.store, [h[schema.IMAGE_ID] for h in hits])

    def shown_hit(hit: dict, wanted: str) -> Hit:
        product_id = hit[schema.PRODUCT_ID]
        return Hit(
            product_id,
            titles.get(product_id) or product_id,
            hit[schema.CATEGORY],
            hit[schema.SCORE],
            thumbnails.get(hit[schema.IMAGE_ID]),
            answers.get(product_id) == wanted if by else None,
        )

    queries = [
        QueryResult(
            row[schema.QUERY_ID],
            photos.get(row[schema.QUERY_ID]),
            row[schema.CATEGORY],
            [shown_hit(hit, wanted) for hit in row[schema.NEIGHBOUR_LIST][:_HITS_SHOWN]],
        )
        for row, wanted in zip(rows.to_pylist(), truth_keys(rows, by).tolist())
    ]
    target = storage.join(out, REPORT_FILE)
    notes = [f"A green frame: the product has the query's {' and '.join(by)}; a red one: it has not."] if by else []
    shown_facts = {k: v for k, v in facts.items() if k in ("index", "encoder", "search version")}
    search_report(target, "What was found", shown_facts, queries, None, num_queries, notes)
    return {"report": target}


def _sample(found: Found, shown: int) -> tuple[pa.Table, int]:
    """At most ``shown`` rows of a search, sorted by category and query, and how many rows there are. Those with the lowest
    hashes: the same queries every time, whatever the order of the rows."""
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.NEIGHBOUR_LIST]
    sample = pa.schema([schema.NEIGHBOURS.schema.field(c) for c in columns]).empty_table()
    num_queries = 0
    for batch in found.read(columns):
        num_queries += batch.num_rows
        sample = pa.concat_tables([sample, batch])
        sample = sample.take(pa.array(np.argsort(ids.hash_keys(sample.column(schema.QUERY_ID)), kind="stable")[:shown]))
    return sample.sort_by([(schema.CATEGORY, "ascending"), (schema.QUERY_ID, "ascending")]), num_queries


def garment_pictures(store: str, wanted: set[str]) -> dict[str, bytes]:
    """The crops of these garments."""
    found = lookup(store, schema.GARMENTS, pa.array(sorted(wanted), pa.string()), [schema.GARMENT_ID, schema.CROP])
    return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist()))


def feed_pictures(feed: FeedConfig, fetch: FetchConfig, wanted: set[str]) -> dict[str, bytes]:
    """The images of these queries that are still there."""
    found: dict[str, bytes] = {}
    get = Fetcher(fetch).get_bytes
    for batch in read_feed(feed):
        chosen = batch.rows.filter(pc.is_in(batch.rows.column(schema.PRODUCT_ID), value_set=pa.array(sorted(wanted))))
        for row in chosen.to_pylist():
            try:
                where = (row[schema.IMAGE_URI], row[IMAGE_OFFSET], row[IMAGE_SIZE])
                found[row[schema.PRODUCT_ID]] = load_image(*where, max_bytes=fetch.max_bytes, fetch=get)
            except Reject:
                continue  # it was there when it was searched: the report shows a blank
    return found


def _pictures(store: str, image_ids: list[str]) -> dict[str, bytes]:
    found = lookup(store, schema.IMAGES, pa.array(sorted(set(image_ids))), [schema.IMAGE_ID, schema.BYTES])
    return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist()))


def truth_keys(rows: pa.Table, match: Sequence[str]) -> np.ndarray:
    """What must be equal for a product to be a right answer: the named attributes (or ``category``) of each row, joined.

    ``rows`` has category and attributes. Raises UsageError where no row has one of them.
    """
    columns = [pa.array([""] * rows.num_rows, pa.string())]
    for name in match:
        by_map = name != schema.CATEGORY
        column = pc.map_lookup(rows.column(schema.ATTRIBUTES), name, "first") if by_map else rows.column(schema.CATEGORY)
        if rows.num_rows and column.null_count == rows.num_rows:
            raise UsageError(f"--match: no row has an attribute {name!r}")
        columns.append(pc.fill_null(column, "").cast(pa.string()))
    return np.asarray(pc.binary_join_element_wise(*columns, "\x1f").to_pylist(), dtype=object)


def relevance(found: Found, match: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(relevant (Q, k) bool, relevant products in the catalog (Q,), query categories (Q,), hit categories (Q, k))."""
    products = delta.current_products(found.store, [schema.PRODUCT_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.ACTIVE])
    products = products.filter(products.column(schema.ACTIVE))
    keys = truth_keys(products, match)
    names, counts = np.unique(keys.astype(str), return_counts=True)
    in_catalog = dict(zip(names.tolist(), counts.tolist()))
    of_product = dict(zip(products.column(schema.PRODUCT_ID).to_pylist(), keys.tolist()))
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.NEIGHBOUR_LIST]
    rows = pa.concat_tables(list(found.read(columns))).sort_by(schema.QUERY_ID)
    wanted = truth_keys(rows, match)
    relevant = np.zeros((rows.num_rows, k), bool)
    hit_category = np.full((rows.num_rows, k), "", dtype=object)
    for q, hits in enumerate(rows.column(schema.NEIGHBOUR_LIST).to_pylist()):
        for r, hit in enumerate(hits[:k]):
            relevant[q, r] = of_product.get(hit[schema.PRODUCT_ID]) == wanted[q]
            hit_category[q, r] = hit[schema.CATEGORY]
    num_relevant = np.array([in_catalog.get(w, 0) for w in wanted.tolist()])
    return relevant, num_relevant, np.asarray(rows.column(schema.CATEGORY).to_pylist(), dtype=object), hit_category
