"""Pairs of looks for training: the people in posts' photos, as cropped by the detector, or whole photos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import UsageError
from w2w.mining.catalog import POST
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.models.looks import detected_by, look_version
from w2w.table import delta
from w2w.table.current import newest_of_each
from w2w.table.delta import need_table
from w2w.table.pending import holding, lookup_batches
from w2w.table.permitted import TRAINING, explained, permitted, why_refused
from w2w.training.encoders.config import PairConfig
from w2w.training.encoders.flow import FETCHED, TEST, TRAIN, VAL, PairTable
from w2w.training.encoders.looks import SOURCE, look_pairs
from w2w.training.encoders.pairs import Listing, listing
from w2w.training.vectors import vector_batches

_READ = (schema.POSTS, schema.LOOKS, schema.IMAGES, schema.SPLITS, schema.DUPLICATES, schema.EMBEDDINGS)
_POST = (schema.POST_ID, schema.IMAGE_ID, schema.URL, schema.PRODUCT_IDS, schema.STYLE, schema.ACTIVE, schema.FETCHED_AT)


@dataclass(frozen=True)
class LookTable(PairTable):
    """Pairs of looks, built from the posts when they are read. ``detected``: the detector that cropped the people, or None."""

    detected: str | None = None
    config: PairConfig = field(default_factory=PairConfig)
    of = "the looks of posts"
    refuses = "posts"
    made_by = "'w2w embed --of=looks'"
    pictures = "table `images`: run the crawl again"
    pairs_from = schema.POSTS

    def read(self, split: str) -> Listing:
        posts, duplicates = self._posts(split), self._all(schema.DUPLICATES, (schema.IMAGE_ID, schema.CLUSTER_ID))
        clusters = dict(zip(*(column.to_pylist() for column in duplicates.columns)))
        rows = look_pairs(posts, self.config, clusters).sort_by(schema.PAIR_ID)
        rows = rows.slice(0, self.limit) if split == TRAIN and self.limit else rows
        for name, value in ((schema.SPLIT, split), (schema.SOURCE, SOURCE)):
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
        return listing(rows, duplicates)

    def lookup(self, table: schema.Table, keys: pa.ChunkedArray, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Pictures of both sides: crops, or whole photos without a crop."""
        if table not in (schema.GARMENTS, schema.IMAGES):
            yield from super().lookup(table, keys, columns)
            return
        cut = [np.empty(0, str)]
        if self.detected is not None:
            read = (schema.IMAGE_ID, schema.CROP)
            at = self.versions[schema.LOOKS.name]
            for rows in lookup_batches(self.store, schema.LOOKS, keys, read, at, FETCHED, stage_version=self.detected):
                rows = rows.filter(rows.column(schema.CROP).is_valid())
                cut.append(rows.column(0).to_numpy(zero_copy_only=False))
                yield rows.rename_columns(list(columns))
        whole = keys.filter(pc.invert(pc.is_in(keys, value_set=pa.array(np.concatenate(cut), pa.string()))))
        for rows in super().lookup(schema.IMAGES, whole, (schema.IMAGE_ID, schema.BYTES)):
            yield rows.rename_columns(list(columns))

    def holding(self, table: schema.Table, keys: pa.ChunkedArray) -> tuple[pa.ChunkedArray, list[str]]:
        found, names = super().holding(schema.IMAGES, keys)
        if self.detected is None:
            return found, names
        at = self.versions[schema.LOOKS.name]
        _, of_looks = holding(self.store, schema.LOOKS, keys, at, stage_version=self.detected)
        return found, [*names, *of_looks]

    def vectors(self, encoder: EncoderConfig, owners: pa.ChunkedArray) -> Iterator[tuple[list[str], np.ndarray]]:
        if schema.EMBEDDINGS.name in self.versions:
            version = look_version(model_version(encoder), self.detected)
            yield from vector_batches(self.store, version, owners, self.versions[schema.EMBEDDINGS.name])

    def gallery(self) -> dict[str, set[str]]:
        """Every look of the test split that is not an anchor, and its group."""
        rows = self.read(TEST).rows
        shown: dict[str, set[str]] = {post[schema.IMAGE_ID]: set() for post in self._posts(TEST)}
        for anchor in rows.column(schema.GARMENT_ID).unique().to_pylist():
            shown.pop(anchor, None)
        for image, group in zip(*(rows.column(c).to_pylist() for c in (schema.IMAGE_ID, schema.PRODUCT_ID))):
            shown[image].add(group)
        return shown

    def num_refused(self) -> int:
        found = [self._active(split) for split in (TRAIN, VAL, TEST)]
        return sum(posts.num_rows - self.may.of(posts).num_rows for posts in found)

    def num_never_made(self) -> int:
        return 0

    def _posts(self, split: str) -> list[dict]:
        """The active posts of a split whose photo may be used, about 500 bytes each."""
        return self.may.of(self._active(split)).to_pylist()

    def _active(self, split: str) -> pa.Table:
        splits = self._all(schema.SPLITS, (schema.OWNER_ID, schema.OWNER_KIND, schema.SPLIT))
        chosen = pc.and_(pc.equal(splits.column(1), POST), pc.equal(splits.column(2), split))
        posts = newest_of_each(self._all(schema.POSTS, _POST), schema.POST_ID)
        known = pc.is_in(posts.column(schema.POST_ID), value_set=splits.filter(chosen).column(0))
        kept = pc.and_(pc.and_(posts.column(schema.ACTIVE), pc.is_valid(posts.column(schema.IMAGE_ID))), known)
        return posts.filter(kept)


def look_table(store: str, config: PairConfig, limit: int | None) -> LookTable:
    """The newest versions. Raises UsageError if there are no posts or splits."""
    need_table(store, schema.POSTS, "crawl")
    need_table(store, schema.IMAGES, "crawl")
    need_table(store, schema.SPLITS, "split")
    opened = {t.name: delta.open_table(store, t) for t in _READ}
    versions = {name: t.version() for name, t in opened.items() if t is not None}
    table = LookTable(store, versions, (), limit, permitted(store, TRAINING), detected_by(store), config)
    if len(table.read(TRAIN)):
        return table
    with explained(lambda: why_refused(table.num_refused(), what=table.refuses)):
        raise UsageError(
            f"--pairs.of=looks: no two posts of the train split have {' or '.join(config.same)} in common: see --pairs.same "
            "and --pairs.shared"
        )
