"""What reports need from the tables: neighbours as JSON lines, sampled queries with their pictures, relevance for metrics."""

import io
import json
from collections.abc import Iterable, Sequence

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


def neighbours(store: str, search_version: str, columns: Sequence[str]) -> Iterable[pa.Table]:
    """Batches of one search's rows."""
    listed = delta.parts(delta.open_table(store, schema.NEIGHBOURS), search_version=search_version)
    return delta.read_batches(store, schema.NEIGHBOURS, columns, listed, batch_rows=8192)


def write_neighbours(store: str, search_version: str, out: str) -> dict[str, str]:
    """OUT/neighbours.jsonl: a line a query, in the order of their ids; returns where it is.

    The lines are held in memory: about 150 bytes a neighbour.
    """
    lines: dict[str, str] = {}
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.NEIGHBOUR_LIST]
    for batch in neighbours(store, search_version, columns):
        lines |= {row[schema.QUERY_ID]: json.dumps(row, ensure_ascii=False) for row in batch.to_pylist()}
    text = io.StringIO()
    text.writelines(f"{lines[query]}\n" for query in sorted(lines))
    target = storage.join(out, JSON_FILE)
    storage.write_bytes(target, text.getvalue().encode())
    return {"neighbours": target}


def write_contact_sheet(
    store: str,
    search_version: str,
    out: str,
    feed: FeedConfig,
    shown: int,
    facts: dict,
    fetch: FetchConfig,
    metrics: pa.Table | None = None,
) -> dict[str, str]:
    """OUT/report.html: ``shown`` queries with the products found; returns where it is."""
    columns = [schema.KEY, schema.QUERY_ID, schema.CATEGORY, schema.NEIGHBOUR_LIST]
    sample: list[tuple[int, dict]] = []
    num_queries = 0
    for batch in neighbours(store, search_version, columns):
        num_queries += batch.num_rows
        # the lowest hashes: the same queries every time, whatever the order of the rows
        hashes = ids.hash_keys(batch.column(schema.QUERY_ID))
        best = np.argsort(hashes)[:shown]
        sample += list(zip(hashes[best].tolist(), batch.take(pa.array(best)).to_pylist()))
        sample = sorted(sample, key=lambda pair: pair[0])[:shown]
    rows = sorted((row for _, row in sample), key=lambda r: (r[schema.CATEGORY], r[schema.QUERY_ID]))
    hits = [h for row in rows for h in row[schema.NEIGHBOUR_LIST][:_HITS_SHOWN]]
    # a mark would mean nothing for queries whose category is none of the catalog's
    known = {h[schema.CATEGORY] for h in hits} & {row[schema.CATEGORY] for row in rows}
    photos = _query_images(feed, fetch, {row[schema.QUERY_ID] for row in rows})
    pictures = _pictures(store, [h[schema.IMAGE_ID] for h in hits])
    titles = _titles(store, [h[schema.PRODUCT_ID] for h in hits])
    queries = [
        QueryResult(
            row[schema.QUERY_ID],
            photos.get(row[schema.QUERY_ID]),
            row[schema.CATEGORY],
            [
                Hit(
                    h[schema.PRODUCT_ID],
                    titles.get(h[schema.PRODUCT_ID]) or h[schema.PRODUCT_ID],
                    h[schema.CATEGORY],
                    h[schema.SCORE],
                    pictures.get(h[schema.IMAGE_ID]),
                    h[schema.CATEGORY] == row[schema.CATEGORY] if row[schema.CATEGORY] in known else None,
                )
                for h in row[schema.NEIGHBOUR_LIST][:_HITS_SHOWN]
            ],
        )
        for row in rows
    ]
    target = storage.join(out, REPORT_FILE)
    notes = ["A green mark: the product's category is the query's; a red one: it is another."] if known else []
    shown_facts = {k: v for k, v in facts.items() if k in ("index", "encoder", "model version", "search version")}
    search_report(target, "What was found", shown_facts, queries, metrics, num_queries, notes)
    return {"report": target}


def _query_images(feed: FeedConfig, fetch: FetchConfig, wanted: set[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for batch in read_feed(feed):
        chosen = batch.rows.filter(pc.is_in(batch.rows.column(schema.PRODUCT_ID), value_set=pa.array(sorted(wanted))))
        for row in chosen.to_pylist():
            try:
                found[row[schema.PRODUCT_ID]] = load_image(
                    row[schema.IMAGE_URI],
                    row[IMAGE_OFFSET],
                    row[IMAGE_SIZE],
                    max_bytes=fetch.max_bytes,
                    fetch=Fetcher(fetch).get_bytes,
                )
            except Reject:
                continue  # it was there when it was searched: the report shows a blank
    return found


def _pictures(store: str, image_ids: list[str]) -> dict[str, bytes]:
    found = lookup(store, schema.IMAGES, pa.array(sorted(set(image_ids))), [schema.IMAGE_ID, schema.BYTES])
    return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist()))


def _titles(store: str, product_ids: list[str]) -> dict[str, str]:
    products = delta.current_products(store, [schema.PRODUCT_ID, schema.TITLE])
    chosen = products.filter(pc.is_in(products.column(0), value_set=pa.array(sorted(set(product_ids)))))
    return dict(zip(chosen.column(0).to_pylist(), chosen.column(1).to_pylist()))


def truth_keys(category: pa.ChunkedArray, attributes: pa.ChunkedArray, match: Sequence[str]) -> np.ndarray:
    """What must be equal for a product to be the right answer: the named attributes (or ``category``) of each row, joined.

    Raises UsageError where no row has one of them.
    """
    columns = []
    for name in match:
        column = category if name == schema.CATEGORY else pc.map_lookup(attributes, name, "first")
        if column.null_count == len(column):
            raise UsageError(f"--match: no row has an attribute {name!r}")
        columns.append(pc.fill_null(column, "").cast(pa.string()))
    return np.asarray(pc.binary_join_element_wise(*columns, "\x1f").to_pylist(), dtype=object)


def relevance(
    store: str, search_version: str, match: Sequence[str], k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(relevant (Q, k) bool, relevant products in the catalog (Q,), query categories (Q,), hit categories (Q, k))."""
    products = delta.current_products(store, [schema.PRODUCT_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.ACTIVE])
    products = products.filter(products.column(schema.ACTIVE))
    keys = truth_keys(products.column(schema.CATEGORY), products.column(schema.ATTRIBUTES), match)
    names, counts = np.unique(keys.astype(str), return_counts=True)
    in_catalog = dict(zip(names.tolist(), counts.tolist()))
    of_product = dict(zip(products.column(schema.PRODUCT_ID).to_pylist(), keys.tolist()))
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.NEIGHBOUR_LIST]
    rows = pa.concat_tables(list(neighbours(store, search_version, columns))).sort_by(schema.QUERY_ID)
    wanted = truth_keys(rows.column(schema.CATEGORY), rows.column(schema.ATTRIBUTES), match)
    relevant = np.zeros((rows.num_rows, k), bool)
    hit_category = np.full((rows.num_rows, k), "", dtype=object)
    for q, hits in enumerate(rows.column(schema.NEIGHBOUR_LIST).to_pylist()):
        for r, hit in enumerate(hits[:k]):
            relevant[q, r] = of_product.get(hit[schema.PRODUCT_ID]) == wanted[q]
            hit_category[q, r] = hit[schema.CATEGORY]
    num_relevant = np.array([in_catalog.get(w, 0) for w in wanted.tolist()])
    return relevant, num_relevant, np.asarray(rows.column(schema.CATEGORY).to_pylist(), dtype=object), hit_category
