"""What shoppers see of an index: answers of a fixed sample of products, and of golden queries, kept from night to night."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import storage
from w2w.index import manifest as m
from w2w.index.answers import kept_for
from w2w.index.gate import EXACT
from w2w.index.manifest import Manifest
from w2w.index.rows import Rows
from w2w.index.search import QUERY, Index
from w2w.index.spec import IndexConfig
from w2w.schema import ANSWERS, AVAILABILITY, CATEGORY, IMAGE_ID, KEY, KIND, PRODUCT_ID, SCORE, VECTOR

SAMPLE, GOLDEN = "sample", "golden"  # kinds of queries
_HIT = pa.struct([(PRODUCT_ID, pa.string()), (IMAGE_ID, pa.string()), (SCORE, pa.float32())])
_QUERY = [(KIND, pa.string()), (KEY, pa.string()), (PRODUCT_ID, pa.string()), (IMAGE_ID, pa.string()), (CATEGORY, pa.string())]
# product_id and image_id: of the query, null for a photo; answers: best first, the query's own product among them
SEEN = pa.schema([*_QUERY, (VECTOR, pa.list_(pa.float32())), (ANSWERS, pa.list_(_HIT))])
# of each product among the sample's answers: in how many it is, by the query's category
STOCK = pa.schema([(PRODUCT_ID, pa.string()), (CATEGORY, pa.string()), (AVAILABILITY, pa.string()), ("answers", pa.int64())])

Hit = tuple[str, str, float]  # product, image, score


@dataclass(frozen=True)
class Here:
    """What tonight's rows say of some products and pictures: (product, image, category) of each, owners of pictures."""

    rows: frozenset[tuple[str, str, str]]
    owners: Mapping[str, frozenset[str]]
    fronts: Mapping[str, tuple[str, str]]  # product -> its first picture, and category

    @staticmethod
    def of(rows: pa.Table | Rows, products: Iterable[str], images: Iterable[str]) -> "Here":
        """``rows``: all of tonight (product_id, image_id, category), a product's front picture first."""
        some = Rows.of(rows).having(products, images).select([PRODUCT_ID, IMAGE_ID, CATEGORY])
        owners, fronts = dict[str, set[str]](), dict[str, tuple[str, str]]()
        listed = list(zip(*(column.to_pylist() for column in some.columns)))
        for product, image, category in listed:
            owners.setdefault(image, set()).add(product)
            fronts.setdefault(product, (image, category))
        return Here(frozenset(listed), {image: frozenset(of) for image, of in owners.items()}, fronts)

    def has(self, product: str) -> bool:
        return product in self.fronts


@dataclass(frozen=True)
class Query:
    """A query and its answers, of one night."""

    kind: str
    key: str
    product: str | None
    image: str | None
    category: str | None
    hits: tuple[Hit, ...]

    def first(self, k: int) -> tuple[Hit, ...]:
        """The first ``k`` without the query's own product."""
        return tuple(hit for hit in self.hits if hit[0] != self.product)[:k]


def queries_in(seen: pa.Table | None, kind: str) -> dict[str, Query]:
    """By key."""
    if seen is None:
        return {}
    mine = seen.filter(pc.equal(seen[KIND], kind))
    columns = [mine[name].to_pylist() for name in (KEY, PRODUCT_ID, IMAGE_ID, CATEGORY, ANSWERS)]
    return {
        key: Query(kind, key, product, image, category, tuple((hit[PRODUCT_ID], hit[IMAGE_ID], hit[SCORE]) for hit in hits))
        for key, product, image, category, hits in zip(*columns)
    }


def sample_queries(before: pa.Table | None, gate: pa.Table, here: Here, cfg: IndexConfig, same_model: bool) -> pa.Table:
    """The queries of SEEN, without answers: those of last night whose product, picture and category are still the same, then
    the gate's (product_id, image_id, category, vector), at most ``gate_queries`` of each category."""
    names = [name for name, _ in _QUERY] + [VECTOR]
    keys = pc.binary_join_element_wise(gate[IMAGE_ID], gate[PRODUCT_ID], " ")
    columns = [pa.repeat(SAMPLE, gate.num_rows), keys, *(gate[c] for c in (PRODUCT_ID, IMAGE_ID, CATEGORY, VECTOR))]
    more = pa.table(columns, names=names)
    if before is not None and same_model:
        old = before.filter(pc.equal(before[KIND], SAMPLE))
        there = [row in here.rows for row in zip(*(old[c].to_pylist() for c in (PRODUCT_ID, IMAGE_ID, CATEGORY)))]
        old = old.filter(pa.array(there, pa.bool_())).select(names)
        more = pa.concat_tables([old, more.filter(pc.invert(pc.is_in(more[KEY], value_set=old[KEY]))).cast(old.schema)])
    counted, kept = Counter[str](), []
    for number, category in enumerate(more[CATEGORY].to_pylist()):
        if counted[category] < cfg.gate_queries:
            counted[category] += 1
            kept.append(number)
    return more.take(pa.array(kept, pa.int64())).combine_chunks()


def ask(index: Index, queries: pa.Table, k: int, num_threads: int = 1, truth: pa.Table | None = None) -> pa.Table:
    """SEEN of these queries (its columns but the answers): k products besides a query's own, as the serving code finds them. A
    category that the index lacks has no answers. ``truth``: the gate's queries, with what this index answers to them."""
    held = index.manifest.rows_by_category()
    categories = queries[CATEGORY].to_pylist()
    found = kept_for(truth, queries, k + 1) if truth is not None and queries.num_rows else EXACT.empty_table()
    known = set(found[QUERY].to_pylist())
    asked = [n for n, c in enumerate(categories) if n not in known and (c is None or c in held)]
    if asked:
        vectors = queries[VECTOR].combine_chunks().take(pa.array(asked))
        vectors_ND = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(asked), -1)
        within = [categories[n] for n in asked]
        hits = index.search(vectors_ND, k + 1, within, one_per_product=True, num_threads=num_threads)
        columns = [np.array(asked)[hits[QUERY].to_numpy()], *(hits[name] for name in EXACT.names[1:])]
        found = pa.concat_tables([found, pa.table(columns, names=EXACT.names).cast(EXACT)])
    found = found.take(pa.array(np.argsort(found[QUERY].to_numpy(), kind="stable"))).combine_chunks()
    counts = np.bincount(found[QUERY].to_numpy(), minlength=queries.num_rows)
    flat = pa.StructArray.from_arrays([found[f.name].combine_chunks() for f in _HIT], fields=list(_HIT))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    answers = pa.ListArray.from_arrays(offsets, flat)
    return pa.table([*queries.columns, answers], names=[*queries.column_names, ANSWERS]).select(SEEN.names).cast(SEEN)


def to_bytes(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def read_seen(uri: str, manifest: Manifest | None) -> pa.Table | None:
    """What a version answered when it was published; None if that is not there, or damaged: then it is asked again."""
    if manifest is None or not manifest.seen:
        return None
    data = _read(m.seen_uri(uri, manifest.version))
    if data is None or hashlib.sha256(data).hexdigest() != manifest.seen:
        return None
    return _table(data, SEEN)


def read_stock(uri: str, version: str) -> pa.Table | None:
    """STOCK as of the last night that passed; None if that is not there, or damaged."""
    data = _read(m.stock_uri(uri, version))
    return None if data is None else _table(data, STOCK)


def _read(where: str) -> bytes | None:
    try:
        return storage.read_bytes(where)
    except FileNotFoundError:
        return None


def _table(data: bytes, expected: pa.Schema) -> pa.Table | None:
    try:
        found = pa.ipc.open_file(data).read_all()
    except (pa.ArrowInvalid, OSError):
        return None
    return found if found.schema.equals(expected) else None


def changed_queries(before: pa.Table | None, here: Here) -> pa.Table | None:
    """Of last night's sample the queries whose product is still sold, but not with that picture; without answers."""
    if before is None:
        return None
    mine = before.filter(pc.equal(before[KIND], SAMPLE)).drop_columns([ANSWERS])
    columns = (mine[name].to_pylist() for name in (PRODUCT_ID, IMAGE_ID))
    changed = [here.has(product) and product not in here.owners.get(image, ()) for product, image in zip(*columns)]
    return mine.filter(pa.array(changed, pa.bool_()))


def drift(index: Index, queries: pa.Table) -> Iterator[tuple[str, float]]:
    """How well the kept templates still fit: the mean length of the queries' vectors in the space of the codes (1: nothing is
    left out), and how unevenly the inverted lists are filled (1: evenly), as the mean over rows."""
    lengths = list[np.ndarray]()
    templates = {s.info.category: index.templates[s.info.template] for s in index.shards}
    for category in sorted(templates.keys() & set(queries[CATEGORY].to_pylist())):
        mine = queries.filter(pc.equal(queries[CATEGORY], category))[VECTOR].combine_chunks()
        vectors_ND = mine.flatten().to_numpy(zero_copy_only=False).reshape(len(mine), -1)
        length_N = np.linalg.norm(vectors_ND, axis=1)
        lengths.append(np.linalg.norm(templates[category].inner(vectors_ND), axis=1) / np.maximum(length_N, 1e-12))
    if lengths:
        yield "norm", float(np.concatenate(lengths).mean())
    if uneven := _uneven(index):
        yield "imbalance", sum(num * factor for _, num, factor in uneven) / sum(num for _, num, _ in uneven)


def _uneven(index: Index) -> list[tuple[str, int, float]]:
    """Template, number of rows and imbalance of each shard that has lists."""
    shards = [(shard.info, shard.imbalance()) for shard in index.shards]
    return [(info.template, info.num_rows, factor) for info, factor in shards if factor is not None]


def with_imbalance(index: Index) -> Index:
    """Its templates say how unevenly their lists are filled."""
    now: dict[str, float] = {}
    uneven = _uneven(index)
    for name in {name for name, _, _ in uneven}:
        mine = [(num, factor) for template, num, factor in uneven if template == name]
        now[name] = sum(num * factor for num, factor in mine) / sum(num for num, _ in mine)
    told = ((t, now.get(t.name, 0.0)) for t in index.manifest.templates)
    templates = tuple(replace(t, imbalance=t.imbalance or factor, imbalance_now=factor) for t, factor in told)
    return replace(index, manifest=replace(index.manifest, templates=templates))
