"""Inputs of reports: neighbours as JSON lines, sampled queries with their pictures, relevance for metrics."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import ids, schema, storage
from w2w.errors import UsageError, attempt
from w2w.garments.taxonomy import ETC
from w2w.ingest.feed import FeedConfig, read_feed
from w2w.ingest.images import load_image
from w2w.ingest.raw import IMAGE_OFFSET, IMAGE_SIZE
from w2w.models.reasons import Reason, Reasons
from w2w.report.cards import RIGHT_MARK, Card, product_card, ranked
from w2w.report.variants import DESIGN_NEEDS, designs, near_duplicates, on_cards, said_of_card
from w2w.search.page import QueryResult, search_report
from w2w.table import delta
from w2w.table.current import current_products
from w2w.table.judgements import Judgements
from w2w.table.pending import values_by_key
from w2w.web.fetch import FetchConfig, Fetcher

JSON_FILE = "neighbours.jsonl"
_HITS_SHOWN = 8
ON_CARDS = (schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL)


@dataclass(frozen=True)
class Found:
    """The neighbours of the queries with these keys, the current ones of one feed. The table also has queries of other feeds,
    and earlier images of a query."""

    store: str
    search_version: str
    keys: pa.ChunkedArray
    kind: str = "feed"
    """As ``search --of``."""

    def read(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Batches of rows."""
        listed = delta.parts(delta.open_table(self.store, schema.NEIGHBOURS), search_version=self.search_version)
        for rows in delta.read_batches(self.store, schema.NEIGHBOURS, [schema.KEY, *columns], listed, batch_rows=8192):
            yield rows.filter(pc.is_in(rows.column(schema.KEY), value_set=self.keys)).drop_columns([schema.KEY])


def write_neighbours(found: Found, out: str) -> str:
    """OUT/neighbours.jsonl: one line per query, in the order of their ids; returns its path.

    The lines are held in memory: about 150 bytes per neighbour.
    """
    lines: dict[str, str] = {}
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.NEIGHBOUR_LIST]
    for batch in found.read(columns):
        lines |= {row[schema.QUERY_ID]: json.dumps(row, ensure_ascii=False) for row in batch.to_pylist()}
    text = io.StringIO()
    text.writelines(f"{lines[query]}\n" for query in sorted(lines))
    target = storage.join(out, JSON_FILE)
    storage.write_bytes(target, text.getvalue().encode())
    return target


def write_contact_sheet(
    found: Found,
    page: str,
    pictures: Callable[[set[str]], dict[str, bytes]],
    shown: int,
    facts: dict,
    match: Sequence[str],
    explained: int = 0,
    reasons: Reasons | None = None,
) -> str:
    """``page``: ``shown`` queries with the products found; returns its path. ``pictures`` returns queries' own images.

    Right answers by ``match`` (see ``truth_keys``) are marked. If nothing is named, and queries and products share categories,
    it counts how often the nearest is of the query's category; most hits are, so none is marked. Hits whose pictures are
    near-duplicates form one card. ``reasons`` are given for the first ``explained`` hits of each query.
    """
    rows, num_queries = _sample(found, shown)
    hits = [hit for row in rows.column(schema.NEIGHBOUR_LIST).to_pylist() for hit in row]
    products = current_products(found.store, [*_ANSWERS, *ON_CARDS])
    # one colour of a design may be the right answer and another not
    known = {} if match else designs(products.select(list(DESIGN_NEEDS)).to_pylist())
    shared = set(products.column(schema.CATEGORY).unique().to_pylist()) & set(rows.column(schema.CATEGORY).to_pylist())
    by = list(match) or ([schema.CATEGORY] if shared - {ETC} else [])
    answered = _answered(products, by)  # in the whole catalog: an answer that was not found is a miss
    among = [pa.array(sorted({h[c] for h in hits}), pa.string()) for c in (schema.PRODUCT_ID, schema.IMAGE_ID)]
    by_id, by_picture = (pc.is_in(products.column(c), value_set=v) for c, v in zip((schema.PRODUCT_ID, schema.IMAGE_ID), among))
    products = products.filter(pc.or_(by_id, by_picture))
    about = {row[schema.PRODUCT_ID]: row for row in products.select([schema.PRODUCT_ID, *ON_CARDS]).to_pylist()}
    answers = Answers(products, by)
    photos = pictures(set(rows.column(schema.QUERY_ID).to_pylist()))
    alike = near_duplicates(found.store, [h[schema.IMAGE_ID] for h in hits])
    sheets = [on_cards(row[schema.NEIGHBOUR_LIST], alike, known)[:_HITS_SHOWN] for row in rows.to_pylist()]
    shown_ids = [group[0][schema.IMAGE_ID] for sheet in sheets for group in sheet]
    images = values_by_key(found.store, schema.IMAGES, shown_ids, schema.BYTES)

    def card(group: list[dict], right: bool) -> Card:
        hit, *others = [about.get(h[schema.PRODUCT_ID], {}) | h for h in group]
        notes = [*ranked(hit[schema.RANK], hit[schema.SCORE]), hit[schema.CATEGORY]]
        more = said_of_card([h[schema.PRODUCT_ID] for h in group], known)
        return product_card(hit, images.get(hit[schema.IMAGE_ID]), RIGHT_MARK if match and right else "", notes, more, others)

    queries = []
    for row, wanted, sheet in zip(rows.to_pylist(), truth_keys(rows, by), sheets):
        wanted = wanted if match or row[schema.CATEGORY] != ETC else None  # without a category, any is right
        rights = [wanted in answered and any(answers.right(h, wanted) for h in group) for group in sheet]  # as in evaluate
        cards = [card(group, right) for group, right in zip(sheet, rights)]
        photo = photos.get(row[schema.QUERY_ID])
        nearest = bool(sheet) and wanted in answered and answers.right(sheet[0][0], wanted)
        why: Sequence[Reason] = ()
        if reasons and explained:
            nearest_of = [images.get(group[0][schema.IMAGE_ID]) for group in sheet[:explained]]
            why = reasons(photo, nearest_of, [c.title for c in cards[:explained]])
        told = (wanted in answered, nearest, why)
        queries.append(QueryResult(row[schema.QUERY_ID], photo, row[schema.CATEGORY], cards, *told))
    search_report(page, "What was found", facts, queries, num_queries, " and ".join(by), found.kind)
    return page


def _sample(found: Found, shown: int) -> tuple[pa.Table, int]:
    """At most ``shown`` rows of a search, sorted by category and query, and the total number of rows. Those with the lowest
    hashes: the same queries every time, whatever the order of the rows."""
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.NEIGHBOUR_LIST]
    sample = schema.NEIGHBOURS.empty(columns)
    num_queries = 0
    for batch in found.read(columns):
        num_queries += batch.num_rows
        sample = pa.concat_tables([sample, batch])
        sample = sample.take(pa.array(np.argsort(ids.hash_keys(sample.column(schema.QUERY_ID)), kind="stable")[:shown]))
    return sample.sort_by([(schema.CATEGORY, "ascending"), (schema.QUERY_ID, "ascending")]), num_queries


def feed_pictures(feed: FeedConfig, fetch: FetchConfig, wanted: set[str]) -> dict[str, bytes]:
    """The images of these queries that still exist."""
    found: dict[str, bytes] = {}
    get = Fetcher(fetch).get_bytes
    for batch in read_feed(feed):
        chosen = batch.rows.filter(
            pc.is_in(batch.rows.column(schema.PRODUCT_ID), value_set=pa.array(sorted(wanted), pa.string()))
        )
        for row in chosen.to_pylist():
            where = (row[schema.IMAGE_URI], row[IMAGE_OFFSET], row[IMAGE_SIZE])
            image = attempt(load_image, *where, max_bytes=fetch.max_bytes, fetch=get)
            if isinstance(image, bytes):  # it existed when it was searched: otherwise the report shows a blank
                found[row[schema.PRODUCT_ID]] = image
    return found


def truth_keys(rows: pa.Table, match: Sequence[str]) -> list[tuple[str, ...] | None]:
    """What must be equal for a product to be a right answer: the named attributes (or ``category``) of each row. None if a row
    lacks one of them: missing values match nothing.

    ``rows`` has category and attributes.
    """
    columns = [column.to_pylist() for column in _truth_columns(rows, match)]
    return [key if all(key) else None for key in zip(*columns)] if match else [None] * rows.num_rows


def _truth_columns(rows: pa.Table, match: Sequence[str]) -> list[pa.ChunkedArray]:
    columns = []
    for name in match:
        by_map = name != schema.CATEGORY
        column = pc.map_lookup(rows.column(schema.ATTRIBUTES), name, "first") if by_map else rows.column(schema.CATEGORY)
        columns.append(pc.utf8_trim_whitespace(column.cast(pa.string())))
    return columns


def _answered(products: pa.Table, match: Sequence[str]) -> set[tuple[str, ...]]:
    """The keys for which some active product with a picture is the right answer."""
    products = products.filter(pc.and_(products.column(schema.ACTIVE), pc.is_valid(products.column(schema.IMAGE_ID))))
    columns = {str(n): column for n, column in enumerate(_truth_columns(products, match))}
    if not columns:
        return set()
    keys = pa.table(columns).group_by(list(columns)).aggregate([])
    return {key for key in zip(*(keys.column(n).to_pylist() for n in columns)) if all(key)}


class Answers:
    """What the active products are right answers for: themselves, and every other product with the same picture."""

    def __init__(self, products: pa.Table, match: Sequence[str]):
        """``products``: product_id, image_id, category, attributes and active."""
        products = products.filter(products.column(schema.ACTIVE))
        self._of_product: dict[str, tuple[str, ...]] = {}
        self._of_picture: dict[str, set[tuple[str, ...]]] = {}
        self._picture_of: dict[str, str] = {}
        columns = (products.column(c).to_pylist() for c in (schema.PRODUCT_ID, schema.IMAGE_ID))
        for product, image, key in zip(*columns, truth_keys(products, match)):
            if image is not None:
                self._picture_of[product] = image
            if key is not None:
                self._of_product[product] = key
                if image is not None:
                    self._of_picture.setdefault(image, set()).add(key)
        self._pictures = Counter(key for keys in self._of_picture.values() for key in keys)

    def __bool__(self) -> bool:
        """Whether any product is a right answer to anything."""
        return bool(self._of_product)

    def num_pictures(self, wanted: tuple[str, ...] | None) -> int:
        """Number of distinct pictures that show a right answer."""
        return self._pictures[wanted] if wanted else 0

    def judged(self, wanted: tuple[str, ...] | None, query: str, judged: Judgements) -> set[str] | None:
        """The pictures of the right answers to a judged query; None if nobody judged it."""
        if query in judged.not_ours:
            return set()
        same, similar = (said.get(query, set()) for said in (judged.same, judged.similar))
        if not (same or similar):
            return None
        matching = {image for image, keys in self._of_picture.items() if wanted in keys} if wanted else set()
        wrong = {self._picture_of[p] for p in similar & self._picture_of.keys()}
        return (matching - wrong) | {self._picture_of[p] for p in same & self._picture_of.keys()}

    def right(self, hit: dict, wanted: tuple[str, ...] | None) -> bool:
        """Whether the hit's picture shows a right answer, whichever of its products was found."""
        if wanted is None:
            return False
        of_picture = self._of_picture.get(hit[schema.IMAGE_ID], ())
        return wanted in of_picture or self._of_product.get(hit[schema.PRODUCT_ID]) == wanted


_ANSWERS = (schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.ACTIVE)


def check_match(store: str, match: Sequence[str]) -> None:
    """Raises UsageError if no active product has one of these, or all of them."""
    products = current_products(store, _ANSWERS) if match else pa.table({})
    for names in [[name] for name in match] + [match] * bool(match):
        if products.num_rows and not Answers(products, names):
            raise UsageError(f"--match: no product has an attribute {' and '.join(map(repr, names))}")


def relevance(
    found: Found, match: Sequence[str], k: int, judged: Judgements | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """(relevant (Q, k) bool, relevant pictures in the catalog (Q,), query categories (Q,), hit categories (Q, k), number of
    queries that lack what is to match). Of hits with one picture the first counts.

    ``judged`` takes precedence over matching: products judged the same are right answers, those judged similar are not, and a
    query judged not ours has none. Raises UsageError if all queries lack what is to match.
    """
    judged = judged or Judgements()
    answers = Answers(current_products(found.store, _ANSWERS), match)
    columns = [schema.QUERY_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.NEIGHBOUR_LIST]
    rows = pa.concat_tables([schema.NEIGHBOURS.empty(columns), *found.read(columns)]).sort_by(schema.QUERY_ID)
    wanted = truth_keys(rows, match)
    num_without = sum(w is None for w in wanted)
    if num_without == rows.num_rows and not judged:
        raise UsageError(f"--match: no query has an attribute {' and '.join(map(repr, match))}")
    relevant = np.zeros((rows.num_rows, k), bool)
    hit_category = np.full((rows.num_rows, k), "", dtype=object)
    queries, num_relevant = rows.column(schema.QUERY_ID).to_pylist(), np.zeros(rows.num_rows, np.int64)
    for q, hits in enumerate(rows.column(schema.NEIGHBOUR_LIST).to_pylist()):
        seen = set()
        right = answers.judged(wanted[q], queries[q], judged)
        num_relevant[q] = len(right) if right is not None else answers.num_pictures(wanted[q])
        for r, hit in enumerate(hits[:k]):
            fits = answers.right(hit, wanted[q]) if right is None else hit[schema.IMAGE_ID] in right
            relevant[q, r] = hit[schema.IMAGE_ID] not in seen and fits
            hit_category[q, r] = hit[schema.CATEGORY]
            seen.add(hit[schema.IMAGE_ID])
    categories = np.asarray(rows.column(schema.CATEGORY).to_pylist(), dtype=object)
    return relevant, num_relevant, categories, hit_category, num_without
