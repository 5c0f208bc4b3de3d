"""Training an encoder and measuring it: where table `pairs`, the recipes and Ray meet."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from PIL import Image

from w2w import schema
from w2w.errors import Reject, UsageError
from w2w.images.decode import decode
from w2w.images.resize import shrink
from w2w.memory import keep_memory
from w2w.models.encoder import EncoderConfig, encoder_input, load_encoder, model_version
from w2w.runtime.job import need_table
from w2w.runtime.run import collect
from w2w.table import delta
from w2w.table.pending import lookup_batches
from w2w.training.config import LoopConfig
from w2w.training.encoders.config import HEAD, LearnConfig
from w2w.training.encoders.pairs import Listing, PairBatches, Row, listing, relevance

TRAIN, VAL, TEST = "train", "val", "test"
_COLUMNS = (schema.PAIR_ID, schema.GARMENT_ID, schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.SPLIT, schema.SOURCE)
_SPARE = 1.5  # pictures are kept this much larger than the network sees them
_FETCHED = 64  # pictures in memory at once while they are shrunk
_AT_ONCE = 64


@dataclass(frozen=True)
class PairTable:
    """Pairs of one version of table `pairs`; each worker reads its own."""

    store: str
    version: int
    sources: tuple[str, ...]
    limit: int | None

    def read(self, split: str) -> Listing:
        """The pairs of a split; about 300 bytes each in memory."""
        rows = delta.read(self.store, schema.PAIRS, list(_COLUMNS), self.version)
        chosen = pc.equal(rows.column(schema.SPLIT), split)
        if self.sources:
            chosen = pc.and_(chosen, pc.is_in(rows.column(schema.SOURCE), value_set=pa.array(self.sources)))
        rows = rows.filter(chosen).sort_by(schema.PAIR_ID)
        if split == TRAIN and self.limit:
            rows = rows.slice(0, self.limit)
        clusters = delta.read(self.store, schema.DUPLICATES, [schema.IMAGE_ID, schema.CLUSTER_ID])
        return listing(rows, clusters)


def pair_table(store: str, sources: Sequence[str] | None, limit: int | None) -> PairTable:
    """The newest version. Raises UsageError for a source that is not there."""
    opened = delta.open_table(store, schema.PAIRS)
    known = sorted(set(delta.read(store, schema.PAIRS, [schema.SOURCE]).column(0).to_pylist()))
    for source in sources or []:
        if source not in known:
            raise UsageError(f"--sources: table `pairs` has no {source!r}, only {', '.join(known)}")
    return PairTable(store, opened.version(), tuple(sources or ()), limit)


def make_training(
    table: PairTable, recipe: str, encoder: EncoderConfig, learn: LearnConfig, loop: LoopConfig, rank: int, num_workers: int
):
    """What one worker trains (a Training): the pairs of its share of the products, and in the first one those held out."""
    from w2w.models import sources
    from w2w.training.encoders.recipe import EncoderRecipe, HeadRecipe
    from w2w.training.loop import Training

    source = sources.find(encoder.name, encoder.revision, encoder.trust_remote_code)
    everything = table.read(TRAIN)
    mine = everything.of_rank(rank, num_workers)
    held = table.read(VAL) if rank == 0 else None
    held = held.take(np.arange(min(len(held), learn.val_pairs))) if held else None
    fetch = _vectors if recipe == HEAD else _pictures
    rows, kept = fetch(table, mine, encoder, learn.negatives)
    val, _ = fetch(table, held, encoder, 0) if held else ([], None)
    made = (HeadRecipe if recipe == HEAD else EncoderRecipe)(learn, source, rows, val, loop.seed)
    num_batches = loop.steps * loop.accumulate
    batches = PairBatches(rows, mine.categories_N[kept], everything.shares(), learn, num_batches, loop.seed, rank)
    return Training(made, batches, loop)


def _rows(listed: Listing, anchors: dict, positives: dict, negatives: dict[str, list] | None = None):
    """Rows whose two sides are there, and their places in the listing."""
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
    """Pairs as encoded pictures, those that are much larger than the network's input shrunk once: about 40 kB a pair."""
    side_px = round(encoder_input(encoder).resize_px * _SPARE)
    negatives = _negatives(table, listed, num_negatives)
    garments = listed.rows.column(schema.GARMENT_ID)
    images = pa.chunked_array([listed.rows.column(schema.IMAGE_ID).combine_chunks(), _images_of(negatives)])
    sides = ((schema.GARMENTS, garments, schema.CROP), (schema.IMAGES, images, schema.BYTES))
    found = []
    for kind, ids, column in sides:
        pictures = {}
        columns = (kind.key[0], column)
        for batch in lookup_batches(table.store, kind, pc.unique(ids), columns, batch_rows=_FETCHED):
            for key, data in zip(*(batch.column(c).to_pylist() for c in columns)):
                try:
                    pictures[key] = _shrunk(data, side_px)
                except Reject:  # ingest and detect have said so
                    continue
        found.append(pictures)
    return _rows(listed, *found, negatives)


def _vectors(table: PairTable, listed: Listing, encoder: EncoderConfig, num_negatives: int):
    """Pairs as the vectors that table `embeddings` has of them."""
    negatives = _negatives(table, listed, num_negatives)
    ids = [listed.rows.column(c).combine_chunks() for c in (schema.GARMENT_ID, schema.IMAGE_ID)]
    wanted = pc.unique(pa.chunked_array([*ids, _images_of(negatives)]))
    only, columns = {"model_version": model_version(encoder)}, (schema.OWNER_ID, schema.VECTOR)
    vectors = {}
    for batch in lookup_batches(table.store, schema.EMBEDDINGS, wanted, columns, **only):
        flat = batch.column(schema.VECTOR).combine_chunks().flatten().to_numpy().reshape(batch.num_rows, -1)
        vectors |= dict(zip(batch.column(schema.OWNER_ID).to_pylist(), np.array(flat)))
    return _rows(listed, vectors, vectors, negatives)


def _negatives(table: PairTable, listed: Listing, count: int) -> dict[str, list]:
    """Of each pair its hardest: (image_id, product, cluster), products as the listing codes them, -1 for others."""
    if not count:
        return {}
    products = dict(zip(listed.rows.column(schema.PRODUCT_ID).to_pylist(), listed.products_N.tolist()))
    clusters = dict(zip(listed.rows.column(schema.IMAGE_ID).to_pylist(), listed.clusters_N.tolist()))
    found = {}
    pairs = pc.unique(listed.rows.column(schema.PAIR_ID))
    for batch in lookup_batches(table.store, schema.NEGATIVES, pairs, (schema.PAIR_ID, schema.NEGATIVES_LIST)):
        for row in batch.to_pylist():
            hardest = [(n[schema.IMAGE_ID], n[schema.PRODUCT_ID]) for n in row[schema.NEGATIVES_LIST][:count]]
            found[row[schema.PAIR_ID]] = [(i, products.get(p, -1), clusters.get(i, -1)) for i, p in hardest]
    return found


def _images_of(negatives: dict[str, list]) -> pa.Array:
    return pa.array(sorted({image for mined in negatives.values() for image, _, _ in mined}), pa.string())


def _shrunk(data: bytes, side_px: int) -> bytes:
    """The picture with at most ``side_px`` on its longer side, as JPEG; a smaller one as it is. Raises Reject."""
    image = decode(data, min_side_px_wanted=side_px)
    if max(image.shape[:2]) <= side_px:
        return data
    out = io.BytesIO()
    Image.fromarray(shrink(image, side_px)).save(out, "JPEG", quality=95)
    return out.getvalue()


def check(table: PairTable, recipe: str, encoder: EncoderConfig, learn: LearnConfig) -> None:
    """Raises UsageError where the encoder cannot be trained so, or what the recipe reads besides the pairs is not there."""
    from w2w.models import sources

    if sources.find(encoder.name, encoder.revision, encoder.trust_remote_code).blueprint is None:
        raise UsageError(f"--encoder.name={encoder.name}: only its own code can build it; w2w trains those of its libraries")
    if learn.negatives:
        need_table(table.store, schema.NEGATIVES, "harden")
    first = table.read(TRAIN).take(np.arange(1))
    if recipe == HEAD and not _vectors(table, first, encoder, 0)[0]:
        raise UsageError(
            f"--recipe={HEAD}: table `embeddings` lacks vectors of {encoder.name} for the pairs: run 'w2w embed' and "
            "'w2w embed --of=garments' first, or train with --recipe=encoder"
        )


def measure_pairs(table: PairTable, encoders: Sequence[EncoderConfig], most: int, num_cpus: float = 1):
    """How encoders find the pictures of test pairs: for each, bool (Q, K) of ``pairs.relevance``; and the pairs' categories.

    The gallery are the pictures of those pairs, each once.
    """
    task = ray.remote(num_cpus=num_cpus)(measure_pictures)
    done = collect([task.remote(table, e, most) for e in encoders], "measure")
    return [relevant for relevant, _ in done], done[0][1]


def measure_pictures(table: PairTable, config: EncoderConfig, most: int) -> tuple[np.ndarray, np.ndarray]:
    """``measure_pairs`` of one encoder, in this process."""
    keep_memory()
    listed = table.read(TEST)
    listed = listed.take(np.arange(min(len(listed), most)))
    rows, kept = _pictures(table, listed, config, 0)
    encoder = load_encoder(config)
    gallery = list({id(r.positive): r for r in rows}.values())
    sides = []
    for pictures in ([r.anchor for r in rows], [r.positive for r in gallery]):
        parts = []
        for start in range(0, len(pictures), _AT_ONCE):
            seen = [encoder.prepare(decode(p)) for p in pictures[start : start + _AT_ONCE]]
            parts.append(encoder.encode(np.stack(seen)))
        sides.append(np.concatenate(parts))
    products = (np.array([r.product for r in part]) for part in (rows, gallery))
    names = np.array(listed.names)[listed.categories_N[kept]]
    return relevance(*sides, *products), names
