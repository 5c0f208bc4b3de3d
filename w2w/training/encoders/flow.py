"""Training and evaluating an encoder from table `pairs`, on Ray."""

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from w2w import ids, schema
from w2w.engine.tasks import collect, submit
from w2w.errors import JobFailed, Reject, UsageError
from w2w.images.decode import decode
from w2w.images.resize import shrink
from w2w.memory import keep_memory
from w2w.mining.catalog import PRODUCT
from w2w.models.config import EncoderConfig
from w2w.models.encoder import encoder_input, load_encoder, model_version, try_encoder
from w2w.table import delta
from w2w.table.delta import need_table
from w2w.table.pending import holding, lookup_batches
from w2w.table.permitted import TRAINING, Permitted, explained, permitted, why_refused
from w2w.table.rejects import num_not_permitted
from w2w.training.config import LoopConfig
from w2w.training.encoders.config import HEAD, LearnConfig
from w2w.training.encoders.pairs import SHRUNK, Listing, PairBatches, Row, listing, ranked
from w2w.training.vectors import vector_batches

if TYPE_CHECKING:
    from w2w.training.loop import Training

TRAIN, VAL, TEST = "train", "val", "test"
_COLUMNS = (
    *(schema.PAIR_ID, schema.GARMENT_ID, schema.ANCHOR_IMAGE_ID, schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY),
    *(schema.SPLIT, schema.SOURCE),
)
_READ = (
    *(schema.PAIRS, schema.DUPLICATES, schema.NEGATIVES, schema.GARMENTS, schema.IMAGES, schema.EMBEDDINGS),
    *(schema.SPLITS, schema.REPRESENTATIVES),
)
_SPARE = 1.5  # pictures are stored at this multiple of the network's input
FETCHED = 64  # pictures in memory at once while they are shrunk
_AT_ONCE = 64
_SHOWN = 6  # pictures that a page shows of what was found


@dataclass(frozen=True)
class PairTable:
    """Table `pairs` and what is read with it, each in a fixed version, so that every worker reads the same."""

    store: str
    versions: dict[str, int]  # of the existing tables
    sources: tuple[str, ...]
    limit: int | None
    may: Permitted = Permitted(TRAINING)
    of: ClassVar[str] = "table `pairs`"
    refuses: ClassVar[str] = "pairs"  # what ``num_refused`` counts
    made_by: ClassVar[str] = "'w2w embed' and 'w2w embed --of=garments'"
    pictures: ClassVar[str] = "tables `garments` and `images`: run 'w2w mine' again"
    pairs_from: ClassVar[schema.Table] = schema.PAIRS

    def read(self, split: str) -> Listing:
        """The pairs of a split; about 300 bytes each in memory."""
        rows = self.may.of(self._pairs(split), (schema.ANCHOR_IMAGE_ID, schema.IMAGE_ID)).sort_by(schema.PAIR_ID)
        if split == TRAIN and self.limit:
            rows = rows.slice(0, self.limit)
        return listing(rows, self._all(schema.DUPLICATES, (schema.IMAGE_ID, schema.CLUSTER_ID)))

    def num_refused(self) -> int:
        """Pairs, or posts, of all splits that are left out because training may not use a picture of theirs."""
        rows = [self._pairs(split) for split in (TRAIN, VAL, TEST)]
        return sum(r.num_rows - self.may.of(r, (schema.ANCHOR_IMAGE_ID, schema.IMAGE_ID)).num_rows for r in rows)

    def num_never_made(self) -> int:
        """Those that are none for that reason: `w2w mine` rejected them."""
        own = not self.sources or schema.OWN in self.sources
        return num_not_permitted(self.store, schema.PAIRS, "mine") if own else 0

    def _pairs(self, split: str) -> pa.Table:
        rows = self._all(schema.PAIRS, _COLUMNS)
        chosen = pc.equal(rows.column(schema.SPLIT), split)
        if self.sources:
            chosen = pc.and_(chosen, pc.is_in(rows.column(schema.SOURCE), value_set=pa.array(self.sources, pa.string())))
        return rows.filter(chosen)

    def lookup(self, table: schema.Table, keys: pa.ChunkedArray, columns: Sequence[str]) -> Iterator[pa.Table]:
        if table.name in self.versions:
            yield from lookup_batches(self.store, table, keys, columns, self.versions[table.name], FETCHED)

    def holding(self, table: schema.Table, keys: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[str]]:
        if table.name not in self.versions:
            return pa.chunked_array([], pa.string()), []
        return holding(self.store, table, keys, self.versions[table.name])

    def vectors(self, encoder: EncoderConfig, owners: pa.ChunkedArray) -> Iterator[tuple[list[str], np.ndarray]]:
        if schema.EMBEDDINGS.name in self.versions:
            version = self.versions[schema.EMBEDDINGS.name]
            yield from vector_batches(self.store, model_version(encoder), owners, version)

    def gallery(self) -> dict[str, set[str]]:
        """The gallery for test anchors, and the products that each picture shows: those of all test pairs, and for the store's
        own products all that `splits` puts into test, by their representative image."""
        shown: dict[str, set[str]] = {}
        rows = self.read(TEST).rows
        for image, product in zip(*(rows.column(c).to_pylist() for c in (schema.IMAGE_ID, schema.PRODUCT_ID))):
            shown.setdefault(image, set()).add(product)
        if not self.sources or schema.OWN in self.sources:
            splits = self._all(schema.SPLITS, (schema.OWNER_ID, schema.OWNER_KIND, schema.SPLIT))
            test = pc.and_(pc.equal(splits.column(1), PRODUCT), pc.equal(splits.column(2), TEST))
            chosen = self.may.of(self._all(schema.REPRESENTATIVES, (schema.PRODUCT_ID, schema.IMAGE_ID)))
            chosen = chosen.filter(pc.is_in(chosen.column(0), value_set=splits.filter(test).column(0)))
            for product, image in zip(*(c.to_pylist() for c in chosen.columns)):
                shown.setdefault(image, set()).add(product)
        return shown

    def _all(self, table: schema.Table, columns: Sequence[str]) -> pa.Table:
        if table.name not in self.versions:
            return table.empty(columns)
        return delta.read(self.store, table, list(columns), self.versions[table.name])


def pair_table(store: str, sources: Sequence[str] | None, limit: int | None) -> PairTable:
    """The newest versions. Raises UsageError for a missing source."""
    opened = {t.name: delta.open_table(store, t) for t in _READ}
    versions = {name: t.version() for name, t in opened.items() if t is not None}
    known = sorted(set(delta.read(store, schema.PAIRS, [schema.SOURCE]).column(0).to_pylist()))
    for source in sources or []:
        if source not in known:
            raise UsageError(f"--sources: table `pairs` has no {source!r}, only {', '.join(known)}")
    return PairTable(store, versions, tuple(sources or ()), limit, permitted(store, TRAINING))


@dataclass(frozen=True)
class Inspected:
    """What is known of the pairs before training."""

    num_pairs: dict[str, int]  # by split, with both sides present
    num_without: int  # missing a side
    digest: str  # of everything that determines the weights


def inspect(table: PairTable, recipe: str, encoder: EncoderConfig, learn: LearnConfig, num_workers: int) -> Inspected:
    """Reads the keys of the training data, and for a head also the vectors, which it validates.

    Raises UsageError if the encoder cannot be trained like this, or if pairs, pictures, vectors or negatives are missing, not
    finite, or all of the same product.
    """
    from w2w.models import sources

    try_encoder(encoder)
    if sources.of(encoder).blueprint is None:
        raise UsageError(f"--encoder.name={encoder.name}: only its own code can build it; w2w trains those of its libraries")
    with explained(lambda: why_refused(table.num_refused() + table.num_never_made(), what=table.refuses)):
        return _inspect(table, recipe, encoder, learn, num_workers)


def _inspect(table: PairTable, recipe: str, encoder: EncoderConfig, learn: LearnConfig, num_workers: int) -> Inspected:
    listings = {split: table.read(split) for split in (TRAIN, VAL, TEST)}
    for split, listed in listings.items():
        if not len(listed):
            raise UsageError(f"{table.of}: no pairs of split {split!r}: see 'w2w split'")
    negatives = _negatives(table, listings[TRAIN], learn.negatives)
    if learn.negatives and not negatives:
        need_table(table.store, schema.NEGATIVES, "harden")
        raise UsageError("--learn.negatives: table `negatives` has none of the train pairs: run 'w2w harden' again")
    counts: dict[str, int] = {}
    told: list[object] = [table.sources, ids.digest_rows(sorted(negatives.items()))]
    for split, listed in listings.items():
        vectors = recipe == HEAD and split != TEST  # the test is of whole encoders, on pictures
        more = negatives if split == TRAIN else {}
        usable, read = (_have_vectors if vectors else _have_pictures)(table, listed, encoder, more)
        counts[split] = int(usable.sum())
        if not usable.any():
            raise UsageError(
                f"--recipe={HEAD}: table `embeddings` lacks vectors of {encoder.name} for the pairs of split {split!r}: run "
                f"{table.made_by} first, or train with --recipe=encoder"
                if vectors
                else f"no pair of split {split!r} has its two pictures in {table.pictures}"
            )
        if split == TRAIN:
            _check_different(listed.take(np.flatnonzero(usable)), num_workers)
        if split != TEST:
            told += [read, ids.digest_rows(_told(listed))]
    return Inspected(counts, sum(map(len, listings.values())) - sum(counts.values()), ids.digest(*told))


def _told(listed: Listing) -> Iterator[list[str]]:
    columns = (schema.PAIR_ID, schema.GARMENT_ID, schema.IMAGE_ID, schema.PRODUCT_ID, schema.CATEGORY)
    for row in zip(*(listed.rows.column(c).to_pylist() for c in columns), listed.clusters[listed.clusters_N].tolist()):
        yield list(row)


def _check_different(listed: Listing, num_workers: int) -> None:
    """Raises UsageError for a worker whose pairs all have one product or picture, so that there is nothing to distinguish."""
    for rank in range(num_workers):
        mine = listed.of_rank(rank, num_workers)
        for codes, what in ((mine.products_N, "product"), (mine.clusters_N, "picture")):
            if len(np.unique(codes)) < 2:
                of = f"--workers.num_workers={num_workers}: for each of them " if num_workers > 1 else ""
                raise UsageError(f"{of}the train pairs are of {len(np.unique(codes))} {what}s: at least two are needed")


def _have_pictures(
    table: PairTable, listed: Listing, encoder: EncoderConfig, negatives: dict[str, list]
) -> tuple[np.ndarray, object]:
    """bool (N,): the pairs with both pictures; and where these are stored."""
    garments, images = listed.rows.column(schema.GARMENT_ID), listed.rows.column(schema.IMAGE_ID)
    crops, of_crops = table.holding(schema.GARMENTS, pc.unique(garments))
    pictures, of_pictures = table.holding(schema.IMAGES, _with(images, negatives))
    usable = pc.and_(pc.is_in(garments, value_set=crops), pc.is_in(images, value_set=pictures))
    return usable.to_numpy(), [of_crops, of_pictures]


def _have_vectors(
    table: PairTable, listed: Listing, encoder: EncoderConfig, negatives: dict[str, list]
) -> tuple[np.ndarray, object]:
    """bool (N,): the pairs with both vectors; and a digest of these."""
    garments, images = (listed.rows.column(c) for c in (schema.GARMENT_ID, schema.IMAGE_ID))
    both = pa.chunked_array([*garments.chunks, *_with(images, negatives).chunks])
    digests = {}
    for names, vectors_ND in table.vectors(encoder, pc.unique(both)):
        digests |= {name: ids.image_id(vector.tobytes()) for name, vector in zip(names, vectors_ND)}
    known = pa.array(list(digests), pa.string())
    usable = pc.and_(pc.is_in(garments, value_set=known), pc.is_in(images, value_set=known))
    return usable.to_numpy(), ids.digest_rows(sorted(digests.items()))


def make_training(
    table: PairTable, recipe: str, encoder: EncoderConfig, learn: LearnConfig, loop: LoopConfig, rank: int, num_workers: int
) -> "Training":
    """What one worker trains (a Training): the pairs of its share of the products; the first one also validates."""
    from w2w.models import sources
    from w2w.training.encoders.recipe import EncoderRecipe, HeadRecipe
    from w2w.training.loop import Training

    source = sources.of(encoder)
    everything = table.read(TRAIN)
    mine = everything.of_rank(rank, num_workers)
    held = table.read(VAL) if rank == 0 else None
    held = held.take(np.arange(min(len(held), learn.val_pairs))) if held else None
    fetch = _vectors if recipe == HEAD else _pictures
    rows, kept = fetch(table, mine, encoder, learn.negatives)
    if not rows:
        raise JobFailed("none of this worker's pictures can be decoded")
    val, _ = fetch(table, held, encoder, 0) if held else ([], None)
    made = (HeadRecipe if recipe == HEAD else EncoderRecipe)(learn, source, rows, val, loop.seed)
    num_batches = loop.steps * loop.accumulate
    batches = PairBatches(rows, mine.categories_N[kept], everything.shares(), learn, num_batches, loop.seed, rank)
    return Training(made, batches, loop)


def _rows(listed: Listing, anchors: dict, positives: dict, negatives: dict[str, list] | None = None):
    """Rows with both sides, and their positions in the listing."""
    rows, kept = [], []
    columns = (listed.rows.column(c).to_pylist() for c in (schema.PAIR_ID, schema.GARMENT_ID, schema.IMAGE_ID))
    for i, (pair, garment, image) in enumerate(zip(*columns)):
        if garment in anchors and image in positives:
            mined = tuple((positives[n], p, c) for n, p, c in (negatives or {}).get(pair, []) if n in positives)
            codes = int(listed.products_N[i]), int(listed.clusters_N[i])
            rows.append(Row(anchors[garment], positives[image], *codes, mined))
            kept.append(i)
    return rows, np.array(kept, int)


def _pictures(table: PairTable, listed: Listing, encoder: EncoderConfig, num_negatives: int):
    """Pairs as encoded pictures, shrunk once if much larger than the network's input: about 40 kB per pair."""
    negatives = _negatives(table, listed, num_negatives)
    garments, images = (listed.rows.column(c) for c in (schema.GARMENT_ID, schema.IMAGE_ID))
    crops = dict(_shrunk_pictures(table, schema.GARMENTS, garments, schema.CROP, encoder))
    pictures = dict(_shrunk_pictures(table, schema.IMAGES, _with(images, negatives), schema.BYTES, encoder))
    return _rows(listed, crops, pictures, negatives)


def _shrunk_pictures(
    table: PairTable, kind: schema.Table, keys: pa.ChunkedArray, column: str, encoder: EncoderConfig
) -> Iterator[tuple[str, bytes]]:
    """Keys and pictures of those that can be decoded."""
    side_px = round(encoder_input(encoder).resize_px * _SPARE)
    columns = (kind.key[0], column)
    for batch in table.lookup(kind, pc.unique(keys), columns):
        for key, data in zip(*(batch.column(c).to_pylist() for c in columns)):
            try:
                yield key, _shrunk(data, side_px)
            except Reject:  # already reported by ingest and detect
                continue


def _vectors(table: PairTable, listed: Listing, encoder: EncoderConfig, num_negatives: int):
    """Pairs as their vectors in table `embeddings`."""
    negatives = _negatives(table, listed, num_negatives)
    garments, images = (listed.rows.column(c) for c in (schema.GARMENT_ID, schema.IMAGE_ID))
    wanted = pc.unique(pa.chunked_array([*garments.chunks, *_with(images, negatives).chunks]))
    vectors = {}
    for names, vectors_ND in table.vectors(encoder, wanted):
        vectors |= dict(zip(names, np.array(vectors_ND)))
    return _rows(listed, vectors, vectors, negatives)


def _negatives(table: PairTable, listed: Listing, count: int) -> dict[str, list]:
    """The hardest negatives of each pair: (image_id, product, cluster), in the codes of its split's listing, -1 for others."""
    found: dict[str, list] = {}
    if not count:
        return found
    for batch in table.lookup(
        schema.NEGATIVES, pc.unique(listed.rows.column(schema.PAIR_ID)), (schema.PAIR_ID, schema.NEGATIVES_LIST)
    ):
        for row in batch.to_pylist():
            usable = [n for n in row[schema.NEGATIVES_LIST] if table.may.allows(n[schema.IMAGE_ID])]
            hardest = [(n[schema.IMAGE_ID], n[schema.PRODUCT_ID]) for n in usable[:count]]
            found[row[schema.PAIR_ID]] = hardest
    images = pa.array(sorted({image for mined in found.values() for image, _ in mined}), pa.string())
    cluster_of = dict(zip(images.to_pylist(), images.to_pylist()))
    for batch in table.lookup(schema.DUPLICATES, images, (schema.IMAGE_ID, schema.CLUSTER_ID)):
        cluster_of |= dict(zip(*(c.to_pylist() for c in batch.columns)))
    products, clusters = ({name: i for i, name in enumerate(names.tolist())} for names in (listed.products, listed.clusters))
    return {
        pair: [(image, products.get(product, -1), clusters.get(cluster_of[image], -1)) for image, product in hardest]
        for pair, hardest in found.items()
    }


def _with(images: pa.ChunkedArray, negatives: dict[str, list]) -> pa.ChunkedArray:
    """The pairs with the pictures of their negatives."""
    more = pa.array(sorted({image for mined in negatives.values() for image, _, _ in mined}), pa.string())
    return pa.chunked_array([*images.chunks, more], pa.string())


def _shrunk(data: bytes, side_px: int) -> bytes:
    """The picture with at most ``side_px`` on its longer side, as JPEG; smaller ones unchanged. Raises Reject."""
    image = decode(data, min_side_px_wanted=side_px)
    if max(image.shape[:2]) <= side_px:
        return data
    out = io.BytesIO()
    Image.fromarray(shrink(image, side_px)).save(out, "JPEG", quality=95)
    return out.getvalue()


@dataclass(frozen=True)
class Measured:
    """What one encoder finds for test pairs. ``relevant_QK``: of ``pairs.ranked``; ``names_Q``: the pairs' categories;
    ``garments``: the anchors; ``found``: for each the nearest pictures; ``sought``: the picture that its pair names."""

    relevant_QK: np.ndarray
    names_Q: np.ndarray
    num_pictures: int
    garments: list[str]
    found: list[list[str]]
    sought: list[str]


def measure_pairs(table: PairTable, encoders: Sequence[EncoderConfig], most: int, num_cpus: float = 1) -> list[Measured]:
    """How encoders retrieve the products of ``most`` test pairs from the gallery of all (``PairTable.gallery``)."""
    return collect([submit(measure_pictures, table, e, most, num_cpus=num_cpus) for e in encoders], "measure")


def measure_pictures(table: PairTable, config: EncoderConfig, most: int) -> Measured:
    """``measure_pairs`` of one encoder, in this process. Pictures are encoded as they are read: only vectors are held."""
    keep_memory()
    listed, shown, encoder = table.read(TEST), table.gallery(), load_encoder(config)
    listed = listed.take(np.flatnonzero(_have_pictures(table, listed, config, {})[0])[:most])

    def encoded(kind: schema.Table, keys: pa.ChunkedArray, column: str) -> dict[str, np.ndarray]:
        found, pictures = {}, _shrunk_pictures(table, kind, keys, column, config)
        while part := list(itertools.islice(pictures, _AT_ONCE)):
            seen = np.stack([encoder.prepare(decode(data, SHRUNK)) for _, data in part])
            found |= dict(zip((key for key, _ in part), encoder.encode(seen)))
        return found

    anchors = encoded(schema.GARMENTS, listed.rows.column(schema.GARMENT_ID), schema.CROP)
    pictures = encoded(schema.IMAGES, pa.chunked_array([sorted(shown)], pa.string()), schema.BYTES)
    rows, kept = _rows(listed, anchors, pictures)
    if not rows:
        raise JobFailed("no test pair has two pictures that can be decoded")
    names, gallery = np.array(listed.names)[listed.categories_N[kept]], sorted(pictures)
    products = listed.products[[r.product for r in rows]].tolist()
    sides = np.stack([r.anchor for r in rows]), np.stack([pictures[image] for image in gallery])
    relevant_QK, order_QK = ranked(*sides, products, [shown[image] for image in gallery])
    found = [[gallery[g] for g in order] for order in order_QK[:, :_SHOWN].tolist()]
    garments, sought = (listed.rows.column(c).take(pa.array(kept)).to_pylist() for c in (schema.GARMENT_ID, schema.IMAGE_ID))
    return Measured(relevant_QK, names, len(gallery), garments, found, sought)
