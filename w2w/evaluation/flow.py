"""Inputs of protocols: queries and galleries from the tables that `w2w convert` wrote, and their vectors."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.engine.progress import Progress
from w2w.errors import Reject, UsageError, attempt
from w2w.evaluation.protocols import CROPS, LABEL, PARTITION, PRODUCTS, QUERY, AProtocol, Retrieval, convert_command
from w2w.evaluation.rules import OWNER, Ranked, rank
from w2w.images.decode import decode
from w2w.memory import keep_memory
from w2w.mining.sets.rows import PRODUCT
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder, model_version
from w2w.table import delta
from w2w.table.current import current_products
from w2w.table.pending import holding, lookup, lookup_batches
from w2w.training.encoders.flow import pair_table
from w2w.training.vectors import vector_batches

if TYPE_CHECKING:
    from w2w.models.encoder import Encoder

_AT_ONCE = 64  # pictures decoded and embedded at once
_PICTURES = {True: (schema.GARMENTS, schema.CROP), False: (schema.IMAGES, schema.BYTES)}  # of crops, or of whole images


@dataclass(frozen=True)
class Model:
    """An encoder, or one whose stored vectors remain but which can no longer be loaded (``config`` None)."""

    name: str
    version: str
    config: EncoderConfig | None


def find_model(store: str, config: EncoderConfig) -> Model:
    """``config.name`` may be a model version of table `embeddings`. Raises UsageError for anything else."""
    listed = delta.parts(delta.open_table(store, schema.EMBEDDINGS))
    if any(dict(part.partition)[schema.MODEL_VERSION] == config.name for part in listed):
        return Model(config.name, config.name, None)
    return Model(config.name, model_version(config), config)


@dataclass
class VectorReader:
    """Vectors of one model: those of table `embeddings`, and of at most ``compute`` pictures without one, which are embedded
    here and not stored. ``most_missing``: share of the queries, and of the gallery, that may have none."""

    store: str
    model: Model
    compute: int
    most_missing: float
    crops: bool = False
    """Whether the queries are garments."""
    missing: dict[str, int] = field(default_factory=dict)
    """Numbers of queries and pictures left out."""
    _made: dict[str, np.ndarray | None] = field(default_factory=dict)
    _encoder: "Encoder | None" = None

    def __call__(self, side: pa.Table, which: str) -> tuple[pa.Table, np.ndarray]:
        """The rows with a vector, and the vectors, float32 (N, D). ``which``: queries or gallery.

        Raises UsageError if more than ``most_missing`` have none: a smaller gallery would improve the figures.
        """
        crops = self.crops and which == "queries"
        owners = side.column(OWNER).combine_chunks()
        found, rows_ND = self.of(owners, crops)
        there = found >= 0
        if lacking := int((~there).sum()):
            self.missing[which] = self.missing.get(which, 0) + lacking
            self._check(lacking, len(there), which)
        if len(found) == len(rows_ND) and there.all() and (np.diff(found) == 1).all():
            return side, rows_ND  # no copy of a large gallery
        return side.filter(pa.array(there)), rows_ND[found[there]]

    def of(self, owners: pa.Array, crops: bool) -> tuple[np.ndarray, np.ndarray]:
        """(row of each owner's vector, -1 if it has none; vectors (M, D)). Each vector is stored once."""
        different = pc.unique(owners)
        place = pc.index_in(owners, value_set=different).to_numpy().astype(np.int64)
        rows_ND, there = np.empty((0, 1), np.float32), np.zeros(len(different), bool)

        def keep(names: Sequence[str], vectors_ND: np.ndarray) -> np.ndarray:
            into = rows_ND if rows_ND.size else np.empty((len(different), vectors_ND.shape[1]), np.float32)
            at = pc.index_in(pa.array(names, pa.string()), value_set=different).to_numpy()
            into[at], there[at] = vectors_ND, True
            return into

        if delta.open_table(self.store, schema.EMBEDDINGS) is not None:
            for names, vectors_ND in vector_batches(self.store, self.model.version, different):
                rows_ND = keep(names, vectors_ND)
        left = different.filter(pa.array(~there))
        if len(left) and self.model.config is not None:
            self._make(left, crops)
            made = {name: vector for name in left.to_pylist() if (vector := self._made.get(name)) is not None}
            if made:
                rows_ND = keep(list(made), np.stack(list(made.values())))
        return np.where(there[place], place, -1), rows_ND

    def pending(self, side: pa.Table, which: str) -> int:
        """Number of pictures of a side that this process would embed. Raises UsageError as a call would."""
        asked = pc.unique(side.column(OWNER).combine_chunks())
        held, _ = holding(self.store, schema.EMBEDDINGS, asked, model_version=self.model.version)
        lacking = len(asked) - len(pc.unique(held))
        if self.model.config is None or lacking > self.compute:
            self._check(lacking, len(asked), which)
            return 0
        return lacking

    def _check(self, lacking: int, num: int, which: str) -> None:
        if lacking > self.most_missing * num:
            of = " --of=garments" if self.crops and which == "queries" else ""
            raise UsageError(
                f"{lacking:,} of {num:,} pictures of the {which} have no vector of {self.model.name} (model version "
                f"{self.model.version}): run 'w2w embed{of}' with that encoder"
            )

    def _make(self, owners: pa.Array, crops: bool) -> None:
        new = pa.array([name for name in owners.to_pylist() if name not in self._made], pa.string())
        if self.model.config is None or not len(new) or len(self._made) + len(new) > self.compute:
            return
        if self._encoder is None:
            keep_memory()
            self._encoder = load_encoder(self.model.config)
        encoder = self._encoder
        self._made |= dict.fromkeys(new.to_pylist())
        pictures, done, bad = pictures_of(self.store, new, crops), 0, 0
        with Progress("embed", len(new), "pictures") as progress:
            while part := list(itertools.islice(pictures, _AT_ONCE)):
                seen = [(name, attempt(decode, data)) for name, data in part]
                good = [(name, encoder.prepare(image)) for name, image in seen if not isinstance(image, Reject)]
                if good:
                    vectors_ND = encoder.encode(np.stack([image for _, image in good]))
                    self._made |= {name: v for (name, _), v in zip(good, vectors_ND) if np.isfinite(v).all()}
                done, bad = done + len(part), bad + len(part) - len(good)
                progress.update(done, bad)


def pictures_of(store: str, owners: pa.Array, crops: bool) -> Iterator[tuple[str, bytes]]:
    """The encoded pictures of garments or images, in any order."""
    table, column = _PICTURES[crops]
    for batch in lookup_batches(store, table, owners, [table.key[0], column], batch_rows=_AT_ONCE):
        yield from zip(*(c.to_pylist() for c in batch.columns))


def read_gallery(store: str, protocol: Retrieval, catalog: str) -> pa.Table:
    """One side: every product of the protocol's split with a picture. Raises UsageError if there is none."""
    if protocol.set == schema.OWN:
        return _own_gallery(store, protocol, catalog)
    products = _products(store, catalog, _columns(protocol))
    split, partition = products.column(schema.SPLIT), products.column(PARTITION)
    wanted = pc.invert(pc.fill_null(pc.equal(partition, QUERY), False))
    if not protocol.all_splits:
        wanted = pc.and_(wanted, pc.fill_null(pc.equal(split, protocol.split), False))
    found = products.filter(wanted)
    if not found.num_rows:
        raise UsageError(_lacks(protocol, catalog, f"no products of split {protocol.split!r}"))
    return found.drop_columns([schema.SPLIT, PARTITION])


def read_queries(store: str, protocol: Retrieval, catalog: str) -> pa.Table:
    """One side: the queries: garments, their photos, or products. Raises UsageError if there is none."""
    names = _columns(protocol)
    if protocol.queries == PRODUCTS:
        products = _products(store, catalog, names)
        found = products.filter(pc.fill_null(pc.equal(products.column(PARTITION), QUERY), False))
        found = found.drop_columns([schema.SPLIT, PARTITION])
    else:
        found = _anchors(store, protocol, catalog, names)
    if not found.num_rows:
        raise UsageError(_lacks(protocol, catalog, f"no queries of split {protocol.split!r}"))
    return found


def _anchors(store: str, protocol: Retrieval, catalog: str, names: Sequence[str]) -> pa.Table:
    """One row per garment and product: a garment whose product has several pictures is in several pairs."""
    owner = schema.GARMENT_ID if protocol.queries == CROPS else schema.ANCHOR_IMAGE_ID
    columns = [owner, schema.PRODUCT_ID, schema.CATEGORY, schema.GARMENT_ID, schema.SPLIT]
    opened = delta.open_table(store, schema.PAIRS)
    pairs = delta.read(store, schema.PAIRS, list(dict.fromkeys(columns)), source=catalog) if opened else None
    if pairs is None or not pairs.num_rows:
        raise UsageError(_lacks(protocol, catalog, "no pairs"))
    pairs = pairs.filter(pc.equal(pairs.column(schema.SPLIT), protocol.split))
    pairs = pairs.group_by([owner, schema.PRODUCT_ID], use_threads=False).aggregate(
        [(name, "min") for name in dict.fromkeys([schema.CATEGORY, schema.GARMENT_ID])]
    )
    pairs = pairs.sort_by([(owner, "ascending"), (schema.PRODUCT_ID, "ascending")])
    given = {OWNER: owner, schema.CATEGORY: f"{schema.CATEGORY}_min", PRODUCT: schema.PRODUCT_ID}
    garments = pairs.column(f"{schema.GARMENT_ID}_min")
    labels = lookup(store, schema.GARMENTS, pc.unique(garments), [schema.GARMENT_ID, schema.ORIGINAL_LABEL])
    at = pc.index_in(garments, value_set=labels.column(0).combine_chunks())
    sides = {name: pairs.column(given[name]) for name in (OWNER, *names) if name in given}
    return pa.table(sides | {LABEL: labels.column(1).take(at)}).select([OWNER, *names])


def _own_gallery(store: str, protocol: Retrieval, catalog: str) -> pa.Table:
    """The test split from `w2w split`. A picture of two products occurs twice."""
    shown = pair_table(store, [catalog], None).gallery()
    rows = sorted((image, product) for image, products in shown.items() for product in products)
    columns = {OWNER: [image for image, _ in rows], PRODUCT: [product for _, product in rows]}
    texts = {name: pa.array(columns.get(name, [None] * len(rows)), pa.string()) for name in (OWNER, *_columns(protocol))}
    return pa.table(texts)


def _columns(protocol: Retrieval) -> list[str]:
    """The columns of a side besides its owner."""
    asked = [name for hit in protocol.hits for name in hit.same]
    return list(dict.fromkeys([schema.CATEGORY, protocol.clusters, *filter(None, [protocol.within]), *asked]))


def _products(store: str, catalog: str, names: Sequence[str]) -> pa.Table:
    """The set's products with a picture, by product_id: OWNER, ``names``, split and partition."""
    rows = current_products(store, [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ATTRIBUTES, schema.ACTIVE])
    there = pc.and_(rows.column(schema.ACTIVE), pc.is_valid(rows.column(schema.IMAGE_ID)))
    rows = rows.filter(pc.and_(there, pc.starts_with(rows.column(schema.PRODUCT_ID), f"{catalog}/")))
    columns = {OWNER: rows.column(schema.IMAGE_ID), schema.CATEGORY: rows.column(schema.CATEGORY)}
    for name in (*names, schema.SPLIT, PARTITION):
        if name not in columns:
            columns[name] = pc.map_lookup(rows.column(schema.ATTRIBUTES), name, "first")
    return pa.table(columns)


def _lacks(protocol: AProtocol, catalog: str, what: str) -> str:
    return f"the store has {what} of {catalog!r}: run '{convert_command(protocol)}', or name the set by --source"


def read_ranked(protocol: Retrieval, queries: pa.Table, gallery: pa.Table, vectors: VectorReader) -> Ranked:
    """The model's results for every query."""
    vectors.crops = protocol.queries == CROPS
    return rank(protocol, queries, gallery, vectors)
