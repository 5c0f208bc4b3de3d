"""The audit on Ray: uses in every table, leaks by id, leaks by picture, and the store compared with a folder of images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table as RichTable

from w2w import ids, schema, storage
from w2w.engine.job import console
from w2w.engine.shuffle import Vectors
from w2w.engine.tasks import collect, submit
from w2w.errors import Reject, UsageError, attempt
from w2w.images.decode import DecodeLimits, decode
from w2w.ingest.images import load_image
from w2w.mining.audit.page import Leak
from w2w.mining.audit.rules import (
    Grouped,
    grouped,
    identity_leaks,
    picture_leaks,
    uses_of_outfits,
    uses_of_pairs,
    uses_of_splits,
)
from w2w.mining.duplicates.fingerprints import SIDE_PX, fingerprint
from w2w.mining.duplicates.flow import find_duplicates, list_fingerprints
from w2w.mining.duplicates.rules import LikenessRules
from w2w.mining.owners import active_posts, active_products
from w2w.table import delta
from w2w.table.pending import values_by_key

BENCHMARK = "benchmark"
_FILES_PER_TASK = 500


@dataclass(frozen=True)
class Audit:
    """The leaks found (LEAKS), and how much was audited."""

    leaks: pa.Table
    num_uses: int
    num_images: int
    num_unseen: int  # images in use without a fingerprint: never decoded, or rejected
    num_candidates: int


def read_uses(store: str, tables: Sequence[str], product_key: Sequence[str], source: str = schema.OWN) -> pa.Table:
    """Every use in these tables (for pairs and outfits, those of ``source``). About 300 bytes each, in the driver."""
    found = []
    if schema.SPLITS.name in tables:
        products, keys = active_products(store, product_key)
        splits = delta.read(store, schema.SPLITS, [schema.OWNER_ID, schema.OWNER_KIND, schema.SPLIT])
        found.append(uses_of_splits(splits, products, keys, active_posts(store)))
    if schema.PAIRS.name in tables:
        columns = [schema.POST_ID, schema.ANCHOR_IMAGE_ID, schema.PRODUCT_ID, schema.IMAGE_ID, schema.SPLIT]
        found.append(uses_of_pairs(delta.read(store, schema.PAIRS, columns, source=source)))
    if schema.OUTFITS.name in tables:
        found.append(uses_of_outfits(delta.read(store, schema.OUTFITS, [schema.ITEMS, schema.SPLIT], source=source)))
    return pa.concat_tables(found)


def audit(store: str, uses: pa.Table, rules: LikenessRules, limits: DecodeLimits) -> Audit:
    """Leaks between the splits of the uses."""
    duplicates = delta.read(store, schema.DUPLICATES, [schema.IMAGE_ID, schema.CLUSTER_ID])
    by_id = identity_leaks(uses, duplicates if duplicates.num_rows else None)
    images, fingerprints = grouped(uses), list_fingerprints(store, limits)
    group_N = _on_fingerprints(images, fingerprints)
    found = find_duplicates(fingerprints, rules, group_N=group_N)
    splits_M = np.array(images.splits, object)[group_N[found.rank_M]]
    by_picture = picture_leaks(found.images, splits_M, found.confirmed)
    seen = int((group_N >= 0).sum())
    leaks = pa.concat_tables([by_id, by_picture])
    return Audit(leaks, uses.num_rows, len(images.image_ids), len(images.image_ids) - seen, found.num_candidates)


def audit_against(
    store: str, uses: pa.Table, split: str, foreign: pa.Table, rules: LikenessRules, limits: DecodeLimits
) -> Audit:
    """Leaks between the images of one split and ``foreign`` fingerprints (of `fingerprint_folder`)."""
    uses = uses.filter(pc.equal(uses.column(schema.SPLIT), split))
    images, fingerprints = grouped(uses), list_fingerprints(store, limits)
    group_N = _on_fingerprints(images, fingerprints)
    found = find_duplicates(fingerprints, rules, group_N=group_N, foreign=foreign)
    splits_M = np.where(found.rank_M < len(group_N), split, BENCHMARK).astype(object)
    leaks = picture_leaks(found.images, splits_M, found.confirmed)
    seen = int((group_N >= 0).sum())
    return Audit(leaks, uses.num_rows, seen + foreign.num_rows, len(images.image_ids) - seen, found.num_candidates)


def _on_fingerprints(images: Grouped, fingerprints: Vectors) -> np.ndarray:
    """Group of each fingerprint's image, in order of their hashes; -1 if it is not used."""
    group_N = np.full(len(fingerprints.places), -1)
    rank = fingerprints.places.rank(ids.hash_keys_128(images.image_ids))
    group_N[rank[rank >= 0]] = images.group_N[rank >= 0]
    return group_N


def fingerprint_folder(folder: str, limits: DecodeLimits) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Fingerprints of the images below a folder (source_uri is the path in it), and the unreadable ones: (path, reason).

    Kept in the driver: 3.2 KB per image. Raises UsageError if the folder has no image.
    """
    root = storage.filesystem(folder)[1]
    paths = [f.path.removeprefix(root).lstrip("/") for f in storage.list_files(folder)]
    chunks = [paths[i : i + _FILES_PER_TASK] for i in range(0, len(paths), _FILES_PER_TASK)]
    tasks = [submit(_fingerprint_files, folder, chunk, limits) for chunk in chunks]
    found = collect(tasks, "benchmark") if tasks else []
    rejects = [r for _, bad in found for r in bad]
    tables = [good for good, _ in found if good.num_rows]
    if not tables:
        raise UsageError(f"--against={folder}: {len(paths)} files, and none of them is an image")
    return pa.concat_tables(tables), rejects


def _picture(uri: str, limits: DecodeLimits) -> np.ndarray:
    return decode(load_image(uri, max_bytes=limits.max_bytes), limits, SIDE_PX)


def _fingerprint_files(folder: str, paths: Sequence[str], limits: DecodeLimits) -> tuple[pa.Table, list[tuple[str, str]]]:
    good, bad, images = [], [], []
    for path in paths:
        image = attempt(_picture, storage.join(folder, path), limits)
        if isinstance(image, Reject):
            bad.append((path, f"{image.code}: {image.detail}"))
        else:
            images.append(image)
            good.append(path)
    hashes, mirrored, grids = fingerprint(images)
    columns = [pa.array(good, pa.string()), pa.array(hashes), pa.array(mirrored), [g.tobytes() for g in grids]]
    names = [schema.SOURCE_URI, schema.PHASH, schema.PHASH_MIRRORED, schema.GRID]
    return pa.table([columns[0], columns[1], columns[2], pa.array(columns[3], pa.binary())], names=names), bad


def gallery(store: str, leaks: pa.Table, uses: pa.Table, against: str | None, most: int) -> list[Leak]:
    """The first ``most`` leaks of every kind, with their pictures and the owners of these."""
    rows: list[dict] = []
    for kind in pc.unique(leaks.column("kind")).to_pylist():
        rows += leaks.filter(pc.equal(leaks.column("kind"), kind)).slice(0, most).to_pylist()
    wanted = sorted({i for row in rows for i in row["images"] if i})
    images = values_by_key(store, schema.IMAGES, wanted, schema.BYTES)
    shown = uses.filter(pc.is_in(uses.column(schema.IMAGE_ID), value_set=pa.array(wanted, pa.string())))
    owners: dict[str, str] = {}
    for use in shown.to_pylist():
        owners.setdefault(use[schema.IMAGE_ID], f"{use['kind']} {use['id']} (table {use['where']})")

    def side(name: str | None, split: str) -> tuple[bytes | None, str]:
        if name is None:
            return None, ""
        if against and split == BENCHMARK:
            return storage.read_bytes(storage.join(against, name)), name
        return images.get(name), owners.get(name, name)

    return [
        Leak(
            row["kind"],
            row["id"],
            row["splits"],
            [side(name, split) for name, split in zip(row["images"], row["splits"])],
            f"{row['how']}, distance {row['distance']:.2f}" if row["how"] else row["id"],
        )
        for row in rows
    ]


def print_leaks(leaks: dict[tuple[str, str], int], shown: Sequence[Leak]) -> None:
    """One line per kind and pair of splits: the count, and an example."""
    table = RichTable("what leaks", "between", "leaks", "example", title="Leaks", title_justify="left")
    for (kind, splits), n in leaks.items():
        of_kind = [leak for leak in shown if leak.kind == kind.split(":")[0]]
        table.add_row(kind, splits, f"{n:,}", " | ".join(text for _, text in of_kind[0].pictures))
    console().print(table)
