"""Pairs on Ray: photos, tags and garments meet by photo, a bucket a task; vectors come to them where similarity decides.

What every bucket needs, products and the splits of posts, lies in the object store once. Without a gate there is one pass.
With one, a first pass writes each bucket's tags and the garments in question as work files and says which vectors it wants, and
``gather`` brings those to a second pass, which decides and writes.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from w2w import ids, schema, storage
from w2w.errors import UsageError
from w2w.mining import gate, pairs
from w2w.mining.gate import Sample
from w2w.mining.pairs import Limits, PairRules
from w2w.mining.tags import PHOTO, newest_posts, tags_of
from w2w.models.encoder import EncoderConfig, model_version
from w2w.runtime import snapshot
from w2w.runtime.exchange import Side, by_key
from w2w.runtime.mining import POST, owner_splits, superseded_posts
from w2w.runtime.run import run_task
from w2w.runtime.shuffle import Vectors, gather, list_vectors, read_vectors, share, shared
from w2w.runtime.snapshot import Made, make_snapshot
from w2w.runtime.stage import REJECTED_BY, REJECTED_SCHEMA
from w2w.table import delta, work
from w2w.table.sink import Counts, Lineage

_POSTS = (schema.POST_ID, schema.URL, schema.IMAGE_ID, schema.PRODUCT_IDS, schema.ACTIVE, schema.FETCHED_AT)
_GARMENTS = (schema.GARMENT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.SCORE, schema.BOX)
NOTHING, AMBIGUOUS, ALL = "none", "ambiguous", "all"  # values of gate.matches
_GATED_ROWS = 50_000  # garments of a bucket whose vectors must fit into a task: 260 MB of 1280 float32 dimensions


@dataclass(frozen=True)
class Asked:
    """The vectors that a gate looks at, and what they must show."""

    model_version: str
    limits: Limits
    sample: int


@dataclass(frozen=True)
class GateConfig:
    """What similarity decides, by vectors of garments and of products' images (`w2w embed`, and `--of garments`)."""

    matches: str = "none"
    """none; ambiguous: which is which, where photo or post has several of a class; all: also where there is one of each, which
    takes out wrong tags."""
    encoder: EncoderConfig = EncoderConfig()
    """The model whose vectors are compared."""
    model_version: str | None = None
    """Of the vectors, in place of the encoder's."""
    max_share: float = 0.25
    """A pair is dissimilar when a larger share of a sample of the class's products is more alike to the garment."""
    margin: float = 0.02
    """By how much the best match must be more alike than the second (cosine of vectors centred on their class)."""
    least_similarity: float = -1.0
    """Least cosine of a pair, for an encoder whose cosines are calibrated."""
    sample: int = 256
    """Garments and products that stand for their class."""

    def __post_init__(self):
        if self.matches not in (NOTHING, AMBIGUOUS, ALL):
            raise UsageError(f"gate.matches={self.matches}: it is one of {NOTHING}, {AMBIGUOUS}, {ALL}")
        if not 0 < self.max_share <= 1:
            raise UsageError(f"gate.max_share={self.max_share}: above 0, at most 1")
        if not 0 <= self.margin <= 2:
            raise UsageError(f"gate.margin={self.margin}: between 0 and 2, a difference of cosines")
        if not -1 <= self.least_similarity <= 1:
            raise UsageError(f"gate.least_similarity={self.least_similarity}: a cosine, between -1 and 1")
        if self.sample < 1:
            raise UsageError(f"gate.sample={self.sample}: must be at least 1")

    def asked(self) -> Asked | None:
        """None where there is no gate. Raises UsageError for an encoder that is not there."""
        if self.matches == NOTHING:
            return None
        limits = Limits(self.max_share, self.margin, self.least_similarity, self.matches == ALL)
        return Asked(self.model_version or model_version(self.encoder), limits, self.sample)


@dataclass(frozen=True)
class Known:
    """What every bucket is told."""

    catalog: pa.Table
    post_splits: pa.Table
    superseded: pa.Table


def mine(
    store: str,
    detector: str,
    catalog: pa.Table,
    rules: PairRules,
    asked: Asked | None,
    lineage: Lineage,
    max_reject_rate: float,
    num_buckets: int | None = None,
) -> tuple[Counts, dict[str, int]]:
    """Makes `pairs` of all current posts and the garments that ``detector`` (a stage version) found in their photos.

    In the driver and once in the object store: the catalog (350 bytes a product) and the splits of posts (50 bytes each); with
    a gate also the owners of all vectors (100 bytes each) and 16 bytes a garment in question.
    """
    splits = owner_splits(store, POST).rename_columns([schema.POST_ID, schema.SPLIT])
    known = share(Known(catalog, splits, superseded_posts(store)))
    sides = [
        Side(schema.POSTS, _POSTS, schema.IMAGE_ID),
        Side(schema.GARMENTS, _GARMENTS, schema.IMAGE_ID, partition={schema.STAGE_VERSION: detector}),
        Side(schema.LOOKS, (schema.IMAGE_ID,), schema.IMAGE_ID, partition={schema.STAGE_VERSION: detector}),
    ]
    if asked is None:
        return make_snapshot(
            store,
            schema.PAIRS,
            sides,
            _by_rule,
            (known, rules),
            lineage,
            max_reject_rate=max_reject_rate,
            num_buckets=num_buckets,
        )
    vectors = list_vectors(store, asked.model_version)
    if not len(vectors.rows):
        raise UsageError(f"no vectors of model version {asked.model_version}: run 'w2w embed', and 'w2w embed --of garments'")
    if num_buckets is None:
        found = delta.count_rows(delta.open_table(store, schema.GARMENTS), **{schema.STAGE_VERSION: detector})
        num_buckets = max(1, -(-found // _GATED_ROWS))
    folder = work.folder(store, lineage.run_id)
    try:
        arguments = (known, rules, asked, share(vectors), folder)
        waiting = by_key(store, sides, _prepare, arguments, num_buckets=num_buckets, title="candidates")
        samples = share(_samples(vectors, catalog, [w.sampled for w in waiting], asked.sample))
        made = _decided(store, vectors, waiting, (asked, samples, lineage))
        receipts = [r for bucket in made for r in bucket]
        return snapshot.commit_snapshot(store, schema.PAIRS, receipts, lineage, max_reject_rate)
    finally:
        work.clean(store, lineage.run_id)


def _found(tables: list[pa.Table], known: list, rules: PairRules) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Tags, claims and boxes of a bucket."""
    posts, garments, looks = tables
    told: Known = shared(known)
    tags = tags_of(newest_posts(posts, told.superseded), told.catalog, told.post_splits, looks, rules.thumbnail_px)
    found = pairs.boxes_of(garments, rules)
    found = found.filter(pl.col(PHOTO).is_in(tags[PHOTO].unique().implode()))
    return tags, pairs.claims_of(tags, found), found


def _by_rule(tables: list[pa.Table], known: list, rules: PairRules) -> Made:
    tags, claims, found = _found(tables, known, rules)
    return _made(tags, pairs.matches_by_rule(claims, found, rules))


def _made(tags: pl.DataFrame, claims: pl.DataFrame) -> Made:
    rows, rejected, read = pairs.pairs_of(tags, claims)
    rejected = rejected.append_column(REJECTED_BY, pa.repeat(pa.scalar("mine"), rejected.num_rows))
    return Made(rows, rejected.select(REJECTED_SCHEMA.names).cast(REJECTED_SCHEMA), read)


@dataclass(frozen=True)
class _Waiting:
    """A bucket between the passes: its work file, and the rows of the vectors it wants, garments' first."""

    path: str
    rows: np.ndarray
    sampled: pa.Table  # garments of lowest hash, with their rows among the vectors


def _prepare(tables: list[pa.Table], known: list, rules: PairRules, asked: Asked, vectors_ref: list, folder: str) -> _Waiting:
    tags, claims, found = _found(tables, known, rules)
    vectors: Vectors = shared(vectors_ref)
    edges = pairs.edges_of(claims, found, asked.limits.singles)
    for owner, place in ((schema.GARMENT_ID, "garment_at"), (schema.IMAGE_ID, "product_at")):
        edges = edges.with_columns(pl.Series(place, vectors.find(edges[owner].to_arrow()), dtype=pl.Int64))
    have = edges.filter((pl.col("garment_at") >= 0) & (pl.col("product_at") >= 0))
    rows, back = np.unique(np.concatenate([have["garment_at"].to_numpy(), have["product_at"].to_numpy()]), return_inverse=True)
    # places in what `gather` brings, in the stead of rows of the table
    have = have.with_columns(garment_at=pl.Series(back[: len(have)]), product_at=pl.Series(back[len(have) :]))
    sampled = pairs.sample_of(have, ids.hash_keys(have[schema.GARMENT_ID].to_arrow().cast(pa.string())), asked.sample)
    sampled = sampled.with_columns(at=pl.Series(vectors.find(sampled[schema.GARMENT_ID].to_arrow()), dtype=pl.Int64))
    path = storage.join(folder, uuid.uuid4().hex)
    for name, frame in (("tags", tags), ("claims", claims), ("found", found), ("edges", have)):
        _write(f"{path}-{name}.parquet", frame)
    return _Waiting(path, rows, sampled.to_arrow())


def _write(uri: str, frame: pl.DataFrame) -> None:
    system, path = storage.filesystem(uri)
    if not storage.is_s3(uri):
        system.create_dir(path.rpartition("/")[0], recursive=True)
    pq.write_table(frame.to_arrow(), path, filesystem=system, compression="zstd")


def _read(uri: str) -> pl.DataFrame:
    system, path = storage.filesystem(uri)
    return pl.from_arrow(pq.read_table(path, filesystem=system))


def _samples(vectors: Vectors, catalog: pa.Table, sampled: Sequence[pa.Table], size: int) -> dict[str, Sample]:
    """Of every class the ``size`` garments and products of lowest hash that have vectors."""
    garments = pl.concat([pl.from_arrow(rows) for rows in sampled]).sort("hash", schema.GARMENT_ID)
    garments = garments.group_by(schema.CATEGORY, maintain_order=True).head(size)
    products = pl.from_arrow(catalog).drop_nulls([schema.CATEGORY, schema.IMAGE_ID]).unique(schema.IMAGE_ID)
    images = products[schema.IMAGE_ID].to_arrow().cast(pa.string())
    products = products.with_columns(
        hash=pl.Series(ids.hash_keys(images)), at=pl.Series(vectors.find(images), dtype=pl.Int64)
    ).filter(pl.col("at") >= 0)
    products = products.sort("hash", schema.IMAGE_ID).group_by(schema.CATEGORY, maintain_order=True).head(size)

    def read(rows: pl.DataFrame, category: str) -> np.ndarray:
        at = rows.filter(pl.col(schema.CATEGORY) == category)["at"].to_numpy()
        return read_vectors(vectors, at) if len(at) else np.empty((0, 1), np.float32)

    return {c: Sample(read(garments, c), read(products, c)) for c in sorted(garments[schema.CATEGORY].unique().to_list())}


def _decided(store: str, vectors: Vectors, waiting: Sequence[_Waiting], arguments: tuple) -> list[list[dict]]:
    """The receipts of every bucket. One that wants no vector has nothing to wait for."""
    wanted = [w for w in waiting if len(w.rows)]
    made = gather(vectors, [w.rows for w in wanted], _decide, [(store, w.path, *arguments) for w in wanted], title="pairs")
    nothing = np.empty((0, 1), np.float32)
    for w in waiting:
        if not len(w.rows):
            made.append(run_task(_decide, store, w.path, *arguments, nothing, title="pairs"))
    return made


def _decide(store: str, path: str, asked: Asked, samples: list, lineage: Lineage, vectors_ND: np.ndarray) -> list[dict]:
    tags, claims, found, edges = (_read(f"{path}-{name}.parquet") for name in ("tags", "claims", "found", "edges"))
    cosine_E, likeness_E, share_E = gate.compare_at(
        vectors_ND,
        edges["garment_at"].to_numpy(),
        edges["product_at"].to_numpy(),
        edges[schema.CATEGORY].to_numpy().astype(str),
        shared(samples),
    )
    edges = edges.with_columns(
        pl.Series(pairs.COSINE, cosine_E), pl.Series(pairs.LIKENESS, likeness_E), pl.Series(pairs.SHARE, share_E)
    )
    claims = pairs.matches_by_similarity(claims, found, edges, asked.limits)
    return snapshot.written(store, schema.PAIRS, _made(tags, claims), lineage)
