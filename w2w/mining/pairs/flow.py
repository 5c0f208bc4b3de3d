"""Pairs on Ray: joins photos, tags and garments by photo, one task per bucket; vectors are sent to them if similarity decides.

What every bucket needs, products and the splits of posts, is in the object store once. Without a gate there is one pass. With
one, a first pass writes each bucket's tags and candidate garments as work files and lists the vectors that it needs; ``gather``
brings those to a second pass, which decides and writes.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from w2w import ids, schema, storage
from w2w.engine import snapshot
from w2w.engine.exchange import Side, by_key
from w2w.engine.shuffle import Vectors, gather, list_vectors, read_vectors, share, shared
from w2w.engine.snapshot import Made, make_snapshot
from w2w.engine.tasks import run_task
from w2w.errors import UsageError
from w2w.mining.catalog import POST, owner_splits, superseded_posts
from w2w.mining.pairs import gate
from w2w.mining.pairs import rules as pairs
from w2w.mining.pairs.gate import Sample
from w2w.mining.pairs.rules import Limits, PairRules
from w2w.mining.tags import PHOTO, PRODUCT_KEY, newest_posts, tags_of
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.stage import REJECTED_BY, REJECTED_SCHEMA, Counts
from w2w.table import delta, work
from w2w.table.judgements import read_judgements
from w2w.table.permitted import TRAINING, Permitted
from w2w.table.sink import Lineage
from w2w.table.tolerance import Tolerance

_POSTS = (schema.POST_ID, schema.URL, schema.IMAGE_ID, schema.PRODUCT_IDS, schema.ACTIVE, schema.FETCHED_AT)
_GARMENTS = (schema.GARMENT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.SCORE, schema.BOX)
NOTHING, AMBIGUOUS, ALL = "none", "ambiguous", "all"  # values of gate.matches
_GATED_ROWS = 50_000  # garments per bucket whose vectors fit into a task: 260 MB of 1280 float32 dimensions


@dataclass(frozen=True)
class Asked:
    """The vectors that a gate uses, and its limits."""

    model_version: str
    limits: Limits
    sample: int


@dataclass(frozen=True)
class GateConfig:
    """What similarity decides, by vectors of garments and of products' images (`w2w embed`, and `--of garments`)."""

    LEAST = {"least_similarity": -1}

    matches: str = "none"
    """none; ambiguous: decide which is which where a photo or post has several of a class; all: also check single matches,
    which removes wrong tags."""
    encoder: EncoderConfig = EncoderConfig()
    """The model whose vectors are compared."""
    model_version: str | None = None
    """Model version of the vectors, instead of the encoder's."""
    max_share: float = 0.25
    """A pair is rejected if a larger share of a sample of the class's products is closer to the garment."""
    margin: float = 0.02
    """Minimum lead of the best match over the second (cosine of vectors centred on their class)."""
    least_similarity: float = -1.0
    """Minimum cosine of a pair, for an encoder whose cosines are calibrated."""
    sample: int = 256
    """Garments and products sampled for each class."""

    def __post_init__(self):
        if self.matches not in (NOTHING, AMBIGUOUS, ALL):
            raise UsageError(f"gate.matches={self.matches}: must be one of {NOTHING}, {AMBIGUOUS}, {ALL}")
        if not 0 < self.max_share <= 1:
            raise UsageError(f"gate.max_share={self.max_share}: above 0, at most 1")
        if not 0 <= self.margin <= 2:
            raise UsageError(f"gate.margin={self.margin}: between 0 and 2, a difference of cosines")
        if not -1 <= self.least_similarity <= 1:
            raise UsageError(f"gate.least_similarity={self.least_similarity}: a cosine, between -1 and 1")
        if self.sample < 1:
            raise UsageError(f"gate.sample={self.sample}: must be at least 1")

    def asked(self) -> Asked | None:
        """None if there is no gate. Raises UsageError for a missing encoder."""
        if self.matches == NOTHING:
            return None
        limits = Limits(self.max_share, self.margin, self.least_similarity, self.matches == ALL)
        return Asked(self.model_version or model_version(self.encoder), limits, self.sample)


@dataclass(frozen=True)
class Known:
    """What every bucket receives."""

    catalog: pa.Table
    post_splits: pa.Table
    superseded: pa.Table
    said: pa.Table  # garment_id, product_id, verdict: people's judgements
    may: Permitted = Permitted(TRAINING)


def mine(
    store: str,
    detector: str,
    catalog: pa.Table,
    rules: PairRules,
    asked: Asked | None,
    lineage: Lineage,
    tolerance: Tolerance,
    num_buckets: int | None = None,
    may: Permitted = Permitted(TRAINING),
) -> tuple[Counts, dict[str, int]]:
    """Replaces `pairs` for all current posts and the garments that ``detector`` (a stage version) found in their photos, of
    pictures that ``may`` be used.

    In the object store: the catalog (350 bytes per product) and the splits of posts (50 bytes each), each built by one task.
    With a gate, the driver holds 60 bytes per vector needed.
    """
    splits, superseded = run_task(_posts_known, store, title="posts")
    known = share(Known(catalog, splits, superseded, _said(store), may))
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
            tolerance=tolerance,
            num_buckets=num_buckets,
        )
    vectors = list_vectors(store, asked.model_version)
    if not len(vectors.places):
        raise UsageError(f"no vectors of model version {asked.model_version}: run 'w2w embed', and 'w2w embed --of garments'")
    if num_buckets is None:
        found = delta.count_rows(delta.open_table(store, schema.GARMENTS), **{schema.STAGE_VERSION: detector})
        num_buckets = max(1, -(-found // _GATED_ROWS))
    folder = work.folder(store, lineage.run_id)
    try:
        waiting = by_key(store, sides, _prepare, (known, rules, asked, folder), num_buckets=num_buckets, title="candidates")
        sampled = [w.sampled for w in waiting]
        samples = share(run_task(_samples, vectors, may.of(catalog), sampled, asked.sample, title="samples"))
        made = _decided(store, vectors, waiting, (asked, samples, lineage))
        receipts = [r for bucket in made for r in bucket]
        return snapshot.commit_snapshot(store, schema.PAIRS, receipts, lineage, tolerance)
    finally:
        work.clean(store, lineage.run_id)


def _posts_known(store: str) -> tuple[pa.Table, pa.Table]:
    splits = owner_splits(store, POST).rename_columns([schema.POST_ID, schema.SPLIT])
    return splits, superseded_posts(store)


def _said(store: str) -> pa.Table:
    """The newest judgements of garments, one row each."""
    judged = read_judgements(store, "garments")
    rows: list[tuple[str, str | None, str]] = [
        (g, p, schema.SAME) for g, products in judged.same.items() for p in sorted(products)
    ]
    rows += [(g, p, schema.SIMILAR) for g, products in judged.similar.items() for p in sorted(products)]
    rows += [(g, None, schema.NOT_OURS) for g in sorted(judged.not_ours)]
    columns = [pa.array(column, pa.string()) for column in zip(*rows)] or [pa.array([], pa.string())] * 3
    return pa.table(columns, names=[schema.GARMENT_ID, schema.PRODUCT_ID, schema.VERDICT])


def _found(
    tables: list[pa.Table], known: list, rules: PairRules
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Tags, claims and boxes of a bucket, and the judgements of these."""
    posts, garments, looks = tables
    told: Known = shared(known)
    posts = newest_posts(posts, told.superseded)
    # a join would hash all products and posts for every bucket; this hashes only the bucket's own keys
    tagged = pc.unique(pc.list_flatten(posts.column(schema.PRODUCT_IDS)))
    catalog = told.catalog.filter(pc.is_in(told.catalog.column(schema.PRODUCT_ID), value_set=tagged.cast(pa.string())))
    own = posts.column(schema.POST_ID).cast(pa.string())
    splits = told.post_splits.filter(pc.is_in(told.post_splits.column(schema.POST_ID), value_set=own))
    tags = tags_of(posts, catalog, splits, looks, rules.thumbnail_px, told.may.refused)
    tagged = pairs.products_of(tags)
    found = pairs.boxes_of(garments, tagged, rules)
    found = found.filter(pl.col(PHOTO).is_in(tags[PHOTO].unique().implode()))
    said = told.said.filter(pc.is_in(told.said.column(schema.GARMENT_ID), value_set=_strings(found[schema.GARMENT_ID])))
    meant = pc.is_in(told.catalog.column(schema.PRODUCT_ID), value_set=said.column(schema.PRODUCT_ID).combine_chunks())
    keys = pl.from_arrow(told.catalog.filter(meant).select([schema.PRODUCT_ID, PRODUCT_KEY]))
    said = pl.from_arrow(said).join(keys, on=schema.PRODUCT_ID, how="left").drop(schema.PRODUCT_ID)
    return tags, pairs.claims_of(tagged, found), found, said


def _by_rule(tables: list[pa.Table], known: list, rules: PairRules) -> Made:
    tags, claims, found, said = _found(tables, known, rules)
    return _made(tags, pairs.with_judgements(pairs.matches_by_rule(claims, found, rules), found, said))


def _made(tags: pl.DataFrame, claims: pl.DataFrame) -> Made:
    rows, rejected, read = pairs.pairs_of(tags, claims)
    rejected = rejected.append_column(REJECTED_BY, pa.repeat(pa.scalar("mine"), rejected.num_rows))
    return Made(rows, rejected.select(REJECTED_SCHEMA.names).cast(REJECTED_SCHEMA), read)


@dataclass(frozen=True)
class _Waiting:
    """A bucket between the passes: its work files, the vectors it needs (`ids.hash_keys_128` of the owners, in order), and
    garments for the samples."""

    path: str
    owners_N2: np.ndarray
    sampled: pa.Table


def _prepare(tables: list[pa.Table], known: list, rules: PairRules, asked: Asked, folder: str) -> _Waiting:
    tags, claims, found, said = _found(tables, known, rules)
    edges = pairs.edges_of(claims, found, asked.limits.singles)
    owners = np.concatenate([ids.hash_keys_128(_strings(edges[c])) for c in (schema.GARMENT_ID, schema.IMAGE_ID)])
    sampled = pairs.sample_of(edges, ids.hash_keys(_strings(edges[schema.GARMENT_ID])), asked.sample)
    path = storage.join(folder, uuid.uuid4().hex)
    for name, frame in (("tags", tags), ("claims", claims), ("found", found), ("edges", edges), ("said", said)):
        _write(f"{path}-{name}.parquet", frame)
    return _Waiting(path, np.unique(owners, axis=0), sampled.to_arrow())


def _strings(column: pl.Series) -> pa.Array:
    return column.to_arrow().cast(pa.string())


def _write(uri: str, frame: pl.DataFrame) -> None:
    system, path = storage.filesystem(uri)
    with storage.named("write", path):
        if not storage.is_s3(uri):
            system.create_dir(path.rpartition("/")[0], recursive=True)
        pq.write_table(frame.to_arrow(), path, filesystem=system, compression="zstd")


def _read(uri: str) -> pl.DataFrame:
    system, path = storage.filesystem(uri)
    with delta.open_part(system, path) as file:
        return pl.from_arrow(file.read())


def _samples(vectors: Vectors, catalog: pa.Table, sampled: Sequence[pa.Table], size: int) -> dict[str, Sample]:
    """For each class, the ``size`` garments and products of lowest hash that have vectors."""
    garments = pl.concat([pl.from_arrow(rows) for rows in sampled]).sort("hash", schema.GARMENT_ID)
    garments = garments.group_by(schema.CATEGORY, maintain_order=True).head(size)
    products = pl.from_arrow(catalog).drop_nulls([schema.CATEGORY, schema.IMAGE_ID]).unique(schema.IMAGE_ID)
    hashes = ids.hash_keys(_strings(products[schema.IMAGE_ID]))
    products = products.with_columns(hash=pl.Series(hashes, dtype=pl.UInt64)).sort("hash", schema.IMAGE_ID)
    products = products.group_by(schema.CATEGORY, maintain_order=True).head(size)

    def read(rows: pl.DataFrame, owner: str, category: str) -> np.ndarray:
        at = vectors.find(_strings(rows.filter(pl.col(schema.CATEGORY) == category)[owner]))
        at = at[at >= 0]
        return read_vectors(vectors, at) if len(at) else np.empty((0, 1), np.float32)

    return {
        c: Sample(read(garments, schema.GARMENT_ID, c), read(products, schema.IMAGE_ID, c))
        for c in sorted(garments[schema.CATEGORY].unique().to_list())
    }


def _decided(store: str, vectors: Vectors, waiting: Sequence[_Waiting], arguments: tuple) -> list[list[dict]]:
    """The receipts of every bucket. One that needs no vector does not wait."""
    rows = [vectors.places.find(w.owners_N2) for w in waiting]
    told = [(store, w.path, w.owners_N2[r >= 0], *arguments) for w, r in zip(waiting, rows)]
    some = [b for b, r in enumerate(rows) if (r >= 0).any()]
    made = gather(vectors, [rows[b][rows[b] >= 0] for b in some], _decide, [told[b] for b in some], title="pairs")
    nothing = np.empty((0, 1), np.float32)
    return made + [run_task(_decide, *told[b], nothing, title="pairs") for b in range(len(told)) if b not in set(some)]


def _decide(
    store: str, path: str, owners_N2: np.ndarray, asked: Asked, samples: list, lineage: Lineage, vectors_ND: np.ndarray
) -> list[dict]:
    names = ("tags", "claims", "found", "edges", "said")
    tags, claims, found, edges, said = (_read(f"{path}-{name}.parquet") for name in names)
    places = ids.Places(owners_N2)
    for owner, place in ((schema.GARMENT_ID, "garment_at"), (schema.IMAGE_ID, "product_at")):
        edges = edges.with_columns(pl.Series(place, places.find(ids.hash_keys_128(_strings(edges[owner])))))
    edges = edges.filter(pl.col("garment_at") >= 0, pl.col("product_at") >= 0)
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
    claims = pairs.with_judgements(pairs.matches_by_similarity(claims, found, edges, asked.limits), found, said)
    return snapshot.written(store, schema.PAIRS, _made(tags, claims), lineage)
