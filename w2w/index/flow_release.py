"""The release gate: before a version is published, what shoppers would see is compared with what they see now."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema, storage
from w2w.engine.shuffle import Vectors, read_vectors
from w2w.errors import JobFailed, Reject, UsageError
from w2w.images.decode import decode
from w2w.index import manifest as m
from w2w.index import rules_release as rules
from w2w.index import seen
from w2w.index.golden import GARMENT, PHOTO, Golden, read_golden
from w2w.index.manifest import GateResult, Manifest
from w2w.index.page import Answered, Responsible, release_page
from w2w.index.rows import Rows
from w2w.index.rules_release import Fault, Found
from w2w.index.search import Index, open_manifest
from w2w.index.seen import GOLDEN, SAMPLE, SEEN, Here, Query
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig
from w2w.models.encoder import finite_rows, load_encoder
from w2w.report.cards import CARD_PX, Card, product_card
from w2w.report.page import thumbnail
from w2w.table.current import newest_of_each
from w2w.table.judgements import read_judgements
from w2w.table.pending import holding, lookup

ROWS_FILE = "rows.jsonl"  # beside the page: every row that is responsible
_SHOWN, _HITS, _CARDS = 16, 6, 12  # queries on the page, answers of each, and rows of a fault
_BATCH = 32
_ON_CARDS = (schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL, schema.IMAGE_ID)
_QUERIES = [SEEN.field(n) for n in range(len(SEEN) - 1)]  # of SEEN without the answers


@dataclass(frozen=True)
class Release:
    """What one run compares. ``page``: where the sheet goes; ``photos``: vectors of golden photos, by key."""

    store: str
    page: str
    golden: tuple[Golden, ...] = ()
    photos: Mapping[str, np.ndarray] | None = None
    accept: bool = False
    sheet: bool = False
    num_threads: int = 1
    command: str = "w2w index"


class NotReleased(JobFailed):
    """The gate on what shoppers see was not passed; ``page`` shows it."""

    def __init__(self, name: str, reasons: Sequence[str], release: Release, page: str | None, figures: Mapping[str, float]):
        way = f"before and after: {page}; to publish it all the same: {release.command} --accept"
        super().__init__(f"index {name!r} is not published: {'; '.join(reasons)}; {way}")
        self.reasons, self.page, self.figures = tuple(reasons), page, dict(figures)


@dataclass(frozen=True)
class Released:
    """``gate``: with what was found, failed unless it may be published; ``seen`` and ``stock``: for the next night."""

    gate: GateResult
    seen: bytes
    stock: bytes
    found: Found
    page: str | None = None


def golden_queries(store: str, config: IndexConfig) -> tuple[Golden, ...]:
    """Those of the file, and what people judged. Raises UsageError for a file that cannot be used."""
    queries = read_golden(config.golden) if config.golden else ()
    if not config.golden_judged:
        return queries
    judged = read_judgements(store, "garments").same
    wanted = pa.array(sorted(judged), pa.string())
    rows = lookup(store, schema.GARMENTS, wanted, [schema.GARMENT_ID, schema.CATEGORY])
    category_of = dict(zip(rows.column(0).to_pylist(), rows.column(1).to_pylist()))
    return queries + tuple(
        Golden("judgements", GARMENT, garment, tuple(sorted(products)), category=category_of[garment])
        for garment, products in sorted(judged.items())
        if products and garment in category_of
    )


def unknown_products(store: str, queries: Sequence[Golden], rows: Rows) -> tuple[str, ...]:
    """Products of golden queries that the catalog never had. Raises UsageError if it had none of those expected."""
    asked = {one.asked for one in queries if one.kind == schema.PRODUCT_ID}
    expected = {product for one in queries for product in one.expected}
    if not asked | expected:
        return ()
    named = pa.array(sorted(asked | expected), pa.string())
    left = named.filter(pc.invert(pc.is_in(named, value_set=rows.having(named)[schema.PRODUCT_ID])))
    unknown = set(left.to_pylist()) - set(holding(store, schema.PRODUCTS, left)[0].to_pylist() if len(left) else ())
    if expected and expected <= unknown:
        raise UsageError(
            f"golden queries expect products that the catalog never had, all of them: {rules.some(sorted(unknown))}"
        )
    return tuple(sorted(unknown))


def encode_photos(uri: str, served: Manifest | None, version: str, queries: Sequence[Golden], encoder: EncoderConfig) -> dict:
    """The vector of every golden photo by key: as it was last night, or computed here. Raises UsageError naming the row of a
    photo that cannot be read."""
    photos = [one for one in queries if one.kind == PHOTO]
    if not photos:
        return {}
    found = _vectors_of(seen.read_seen(uri, served), {one.key for one in photos}) if _same(served, version) else {}
    due = [one for one in photos if one.key not in found]
    if not due:
        return found
    model = load_encoder(encoder)
    for start in range(0, len(due), _BATCH):
        some, pixels = due[start : start + _BATCH], []
        for one in some:
            try:
                pixels.append(model.prepare(decode(storage.read_bytes(storage.source(one.asked)))))
            except Reject as e:
                raise UsageError(f"{one.where}: photo: {e}") from None
        vectors_ND = model.encode(np.stack(pixels))
        if bad := np.flatnonzero(~finite_rows(vectors_ND)).tolist():
            raise UsageError(f"{some[bad[0]].where}: photo: {model.name} gave NaN or infinity")
        found |= {one.key: vector_D for one, vector_D in zip(some, vectors_ND)}
    return found


def _same(served: Manifest | None, version: str) -> bool:
    return served is not None and served.model_version == version


def _vectors_of(table: pa.Table | None, keys: set[str], kind: str = GOLDEN) -> dict[str, np.ndarray]:
    if table is None:
        return {}
    wanted = pc.is_in(table[schema.KEY], value_set=pa.array(sorted(keys), pa.string()))
    mine = table.filter(pc.and_(pc.equal(table[schema.KIND], kind), wanted))
    listed = zip(*(mine[name].to_pylist() for name in (schema.KEY, schema.VECTOR)))
    return {key: np.asarray(vector, np.float32) for key, vector in listed}


def check_release(
    release: Release,
    uri: str,
    served: Manifest | None,
    index: Index,
    gate: GateResult,
    truth: pa.Table,
    rows: Rows,
    vectors: Vectors,
) -> Released:
    """Compares the version that was built, ``index``, with the one that is ``served``. ``gate``: of recall and counts;
    ``truth``: its queries with their vectors, and what was found; ``rows``: all that was indexed."""
    cfg, same_model = index.manifest.config, _same(served, vectors.version)
    stored = seen.read_seen(uri, served)
    images = [*truth[schema.IMAGE_ID].to_pylist(), *(one.asked for one in release.golden if one.kind == schema.IMAGE_ID)]
    products = [one.asked for one in release.golden if one.kind == schema.PRODUCT_ID]
    products += [product for one in release.golden for product in one.expected]
    last = seen.queries_in(stored, SAMPLE)
    images += [q.image for q in last.values() if q.image]
    products += [q.product for q in last.values() if q.product]
    here = Here.of(rows, products, images)
    pinned = _pinned(release, stored if same_model else None, here, vectors, gate.per_category)
    sample = seen.sample_queries(stored, truth, here, cfg, same_model)
    before = _before(uri, served, stored, pinned, sample, release, cfg, same_model)
    deepest = max([cfg.recall_at, *(one.k for one in release.golden)])
    now = pa.concat_tables(
        [
            seen.ask(index, sample, cfg.recall_at, release.num_threads, truth),
            seen.ask(index, pinned, deepest, release.num_threads),
        ]
    ).combine_chunks()
    then, tonight = ({kind: seen.queries_in(t, kind) for kind in (SAMPLE, GOLDEN)} for t in (before, now))
    hits = [hit for q in (*then[SAMPLE].values(), *then[GOLDEN].values()) for hit in q.hits]
    here = Here.of(rows, [*products, *(hit[0] for hit in hits)], [*images, *(hit[1] for hit in hits)])
    same = _kept_templates(served, index.manifest)
    stock = rules.stock_of(tonight[SAMPLE], _availability(rows, tonight[SAMPLE]), cfg.recall_at)
    again = _again(index, stored if same_model else None, here, release.num_threads)
    parts = [
        rules.churn(then[SAMPLE] if same_model else {}, tonight[SAMPLE], here, cfg, same),
        rules.swapped(last, again, here, cfg),
        rules.golden(release.golden, then[GOLDEN], tonight[GOLDEN], here, cfg, same_model, same),
        rules.stock(seen.read_stock(uri, served.version) if served else None, stock, cfg),
        Found(dict(seen.drift(index, sample)), said=_idle_floors(cfg, gate.per_category)),
    ]
    found = rules.together(parts)
    page = None
    if found.faults or release.sheet:
        page = _sheet(release, found, then, tonight | {SAMPLE: again | tonight[SAMPLE]})
    reasons = tuple(map(sentence, found.faults))
    per_category = {c: figures | found.by_category.get(c, {}) for c, figures in gate.per_category.items()}
    gate = replace(
        gate,
        passed=gate.passed and (release.accept or not reasons),
        reasons=gate.reasons + reasons,
        per_category=per_category,
        seen=found.figures,
    )
    return Released(gate, seen.to_bytes(now), seen.to_bytes(stock), found, page)


def _before(
    uri: str,
    served: Manifest | None,
    stored: pa.Table | None,
    pinned: pa.Table,
    sample: pa.Table,
    release: Release,
    cfg: IndexConfig,
    same_model: bool,
) -> pa.Table | None:
    """What the served version answered, as stored; what is not stored is asked of it, where its vectors are of this model."""
    if served is None or not same_model:
        return stored
    known = stored[schema.KEY] if stored is not None else pa.array([], pa.string())
    new = pinned.filter(pc.invert(pc.is_in(pinned[schema.KEY], value_set=known)))
    due = [(new, max([1, *(one.k for one in release.golden)]))] if new.num_rows else []
    due += [(sample, cfg.recall_at)] if stored is None else []
    if not due:
        return stored
    try:
        index = open_manifest(uri, served)
        asked = [seen.ask(index, queries, k, release.num_threads) for queries, k in due]
    except JobFailed:  # damaged: it is built anew
        return stored
    return pa.concat_tables([*([stored] if stored is not None else []), *asked]).combine_chunks()


def _idle_floors(cfg: IndexConfig, categories: Mapping[str, object]) -> tuple[str, ...]:
    named = {c: option for option in ("recall_floors", "golden_floors") for c in getattr(cfg, option) if c not in categories}
    return tuple(f"index.{option}: the index has no category {category!r}" for category, option in sorted(named.items()))


def _again(index: Index, stored: pa.Table | None, here: Here, num_threads: int) -> dict[str, Query]:
    """What is found with the pictures that sampled products had last night and have no more."""
    queries = seen.changed_queries(stored, here)
    return (
        {}
        if queries is None
        else seen.queries_in(seen.ask(index, queries, index.manifest.config.recall_at, num_threads), SAMPLE)
    )


def _pinned(
    release: Release, stored: pa.Table | None, here: Here, vectors: Vectors, categories: Mapping[str, object]
) -> pa.Table:
    """The golden queries that can be asked, as SEEN without answers: not those of a product that is withdrawn, and within a
    category that the index has not."""
    known = seen.queries_in(stored, GOLDEN)
    kept_D = _vectors_of(stored, {one.key for one in release.golden}) | dict(release.photos or {})
    asked: list[tuple[Golden, str | None, str | None, str | None]] = []
    for one in release.golden:
        product, image, category = None, None, one.category
        if one.kind == schema.PRODUCT_ID:
            if not here.has(one.asked):
                continue
            product, (image, own) = one.asked, here.fronts[one.asked]
            category = category or own
        elif one.kind == schema.IMAGE_ID:
            owner = min(here.owners.get(one.asked, ()), default=None)
            product, image = owner, one.asked
            category = category or (here.fronts[owner][1] if owner else None)
        if category is not None and category not in categories:
            continue
        if one.key in known and known[one.key].image != image:
            kept_D.pop(one.key, None)
        asked.append((one, product, image, category))
    due = [(one.key, image or one.asked) for one, _, image, _ in asked if one.key not in kept_D]
    places = vectors.find(pa.array([owner for _, owner in due], pa.string())) if due else np.empty(0, np.int64)
    there = np.flatnonzero(places >= 0)
    if len(there):
        found_ND = read_vectors(vectors, places[there])
        kept_D |= {due[n][0]: vector_D for n, vector_D in zip(there.tolist(), found_ND)}
    columns = [
        (GOLDEN, one.key, product, image, category, kept_D[one.key])
        for one, product, image, category in asked
        if one.key in kept_D
    ]
    listed = list(zip(*columns)) or [[] for _ in _QUERIES]
    return pa.table([pa.array(list(c), f.type) for c, f in zip(listed, _QUERIES)], schema=pa.schema(_QUERIES))


def _kept_templates(served: Manifest | None, now: Manifest) -> set[str]:
    """Categories whose codes are those of last night."""
    before = {s.category: s.template for s in served.shards} if served else {}
    return {s.category for s in now.shards if before.get(s.category) == s.template}


def _availability(rows: Rows, queries: Mapping[str, Query]) -> dict[str, str | None]:
    mine = rows.having({hit[0] for q in queries.values() for hit in q.hits})
    if schema.AVAILABILITY not in mine.column_names:
        return {}
    return dict(zip(mine[schema.PRODUCT_ID].to_pylist(), mine[schema.AVAILABILITY].to_pylist()))


def check_served(
    release: Release, uri: str, served: Manifest, rows: Rows, vectors: Vectors, encoder: EncoderConfig, cfg: IndexConfig
) -> tuple[Found, str | None]:
    """Of the version that stays published, because its rows are the same: whether what it answers is in stock, and its golden
    queries, which may be new; and the page, if one was written. Raises NotReleased for what fails and is not accepted; else the
    stock is noted for the next night."""
    stored = seen.read_seen(uri, served)
    answers = seen.queries_in(stored, SAMPLE)
    now = rules.stock_of(answers, _availability(rows, answers), cfg.recall_at)
    before = seen.read_stock(uri, served.version)
    parts = [rules.stock(before, now, cfg)] if answers else []
    pinned = seen.queries_in(stored, GOLDEN)
    if release.golden:
        images = [one.asked for one in release.golden if one.kind == schema.IMAGE_ID]
        products = [one.asked for one in release.golden if one.kind == schema.PRODUCT_ID]
        here = Here.of(rows, [*products, *(product for one in release.golden for product in one.expected)], images)
        new = tuple(one for one in release.golden if one.key not in pinned)
        if new:
            photos = encode_photos(uri, served, vectors.version, new, encoder) if release.photos is None else release.photos
            queries = _pinned(replace(release, golden=new, photos=photos), None, here, vectors, served.rows_by_category())
            asked = seen.ask(open_manifest(uri, served), queries, max(one.k for one in new), release.num_threads)
            pinned |= seen.queries_in(asked, GOLDEN)
        parts.append(rules.golden(release.golden, {}, pinned, here, cfg))
    found, now_and_then, page = rules.together(parts), {SAMPLE: answers, GOLDEN: pinned}, None
    if found.faults or release.sheet:
        page = _sheet(release, found, now_and_then, now_and_then)
    if found.faults and not release.accept:
        raise NotReleased(served.name, tuple(map(sentence, found.faults)), release, page, found.figures)
    if answers and (before is None or not before.equals(now)):
        storage.write_bytes(m.stock_uri(uri, served.version), seen.to_bytes(now))
    return found, page


def sentence(fault: Fault) -> str:
    """The fault with the first of the rows that are responsible."""
    rows = [f"{row.product_id} ({row.why})" for row in fault.rows]
    return f"{fault.said}: {rules.some(rows)}" if rows else fault.said


def _sheet(
    release: Release,
    found: Found,
    before: Mapping[str, Mapping[str, Query]],
    now: Mapping[str, Mapping[str, Query]],
) -> str:
    """Writes the contact sheet, and all responsible rows beside it; returns its place."""
    pinned = {one.key: one for one in release.golden}
    both = [(key, kind, before[kind].get(key), now[kind].get(key)) for key in _worst(found, before, now) for kind in before]
    shown = [(key, kind, old, new) for key, kind, old, new in both if old or new][:_SHOWN]
    hits = [hit for *_, old, new in shown for q in (old, new) if q for hit in q.first(_HITS)]
    cards = {row.product_id for fault in found.faults for row in fault.rows[:_CARDS]}
    about = _products(release.store, cards | {hit[0] for hit in hits})
    asked = {q.image for *_, old, new in shown for q in (old, new) if q and q.image}
    of_cards = {image for product in cards if (image := about.get(product, {}).get(schema.IMAGE_ID))}
    pictures = _pictures(release.store, {hit[1] for hit in hits} | asked | of_cards)

    def answered(q: Query | None, other: Query | None, word: str, title: str) -> Answered:
        names = {hit[0] for hit in other.first(_HITS)} if other else set()
        listed = [] if q is None else [
            product_card(
                about.get(product, {}) | {schema.PRODUCT_ID: product},
                pictures.get(image),
                notes=(str(rank), f"{score:.3f}", *([word] if product not in names else [])),
            )
            for rank, (product, image, score) in enumerate(q.first(_HITS), 1)
        ]  # fmt: skip
        return Answered(title, listed)

    queries = []
    for key, kind, old, new in shown:
        q = new or old
        assert q is not None, "it is of one night at least"
        one = pinned.get(key) if kind == GOLDEN else None
        photo = _photo(one) if one and one.kind == PHOTO else pictures.get(q.image or "")
        label = one.label + (f": {one.note}" if one.note else "") if one else q.category or ""
        name = q.product or (one.asked.rpartition("/")[2] if one else "")
        pair = answered(old, new, "gone", "Before"), answered(new, old, "new", "After")
        queries.append((name, label, thumbnail(photo, CARD_PX), pair))
    faults = [Responsible(f.said, [_card(row, about, pictures) for row in f.rows[:_CARDS]], len(f.rows)) for f in found.faults]
    figures = {name.replace("_", " "): value for name, value in found.figures.items()}
    release_page(release.page, faults, release.accept, figures, found.said, queries)
    rows = [{"fault": fault.kind} | asdict(row) for fault in found.faults for row in fault.rows]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    storage.write_bytes(storage.join(release.page.rpartition("/")[0], ROWS_FILE), lines.encode())
    return release.page


def _worst(found: Found, before: Mapping[str, Mapping[str, Query]], now: Mapping[str, Mapping[str, Query]]) -> Iterable[str]:
    """Keys of queries: those that failed, those that show rows that are responsible, those with most other answers."""
    bad = {row.product_id for fault in found.faults for row in fault.rows}
    changed: dict[str, tuple[int, int]] = {}
    for kind in (SAMPLE, GOLDEN):
        for key, q in now[kind].items():
            names = [hit[0] for hit in q.first(_HITS)]
            old = before[kind].get(key)
            other = len({hit[0] for hit in old.first(_HITS)} - set(names)) if old else 0
            if shows := len(bad & set(names)) + other:
                changed[key] = (-len(bad & set(names)), -shows)
    return dict.fromkeys([*found.worst, *sorted(changed, key=lambda key: (changed[key], key))])


def _photo(one: Golden) -> bytes | None:
    try:
        return storage.read_bytes(storage.source(one.asked))
    except FileNotFoundError:  # it was there when the run began
        return None


def _card(row: rules.Row, about: Mapping[str, dict], pictures: Mapping[str, bytes]) -> Card:
    known = about.get(row.product_id, {}) | {schema.PRODUCT_ID: row.product_id}
    return product_card(known, pictures.get(known.get(schema.IMAGE_ID) or ""), notes=(row.why,))


def _products(store: str, wanted: Iterable[str]) -> dict[str, dict]:
    columns = [schema.PRODUCT_ID, schema.FETCHED_AT, *_ON_CARDS]
    rows = lookup(store, schema.PRODUCTS, pa.array(sorted(set(wanted)), pa.string()), columns)
    return {row[schema.PRODUCT_ID]: row for row in newest_of_each(rows, schema.PRODUCT_ID).to_pylist()}


def _pictures(store: str, wanted: Iterable[str]) -> dict[str, bytes]:
    named = pa.array(sorted(set(wanted)), pa.string())
    found = lookup(store, schema.IMAGES, named, [schema.IMAGE_ID, schema.BYTES])
    return dict(zip(*(column.to_pylist() for column in found.columns)))
