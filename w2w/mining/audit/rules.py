"""The leak audit: anything that is in two splits, by id and by picture.

A use is one appearance of a product, post or image in a split, in any table that training reads. A leak is one id in two
splits, or two pictures in two splits that are the same picture. The latter is found from the images alone, regardless of table
`duplicates`: a mistake in that table must not hide the leaks that it causes.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.errors import UsageError
from w2w.mining.duplicates.rules import HOW, Confirmed
from w2w.mining.splits.rules import POST, PRODUCT

KIND, ID, WHERE = "kind", "id", "where"
IMAGE, DUPLICATE, PICTURE = "image", "near-duplicate cluster", "picture"
KINDS = (PRODUCT, POST, IMAGE, DUPLICATE, PICTURE)

USES = pa.schema(
    [
        (WHERE, pa.string()),  # the table
        (KIND, pa.string()),
        (ID, pa.string()),
        (schema.IMAGE_ID, pa.string()),  # its picture, if known
        (schema.SPLIT, pa.string()),
    ]
)
LEAKS = pa.schema(
    [
        (KIND, pa.string()),
        (ID, pa.string()),
        ("splits", pa.list_(pa.string())),
        ("images", pa.list_(pa.string())),  # one per split
        (schema.HOW, pa.string()),  # for pictures: the relation of the second to the first
        (schema.DISTANCE, pa.float32()),
    ]
)


@dataclass(frozen=True)
class Grouped:
    """The images of an audit: each once, with its split (if it is in several, that is a leak of its own)."""

    image_ids: pa.Array
    group_N: np.ndarray
    splits: tuple[str, ...]  # split of each group number


def uses_of_splits(splits: pa.Table, products: pa.Table, keys: pa.ChunkedArray, posts: pa.Table) -> pa.Table:
    """Uses in table `splits`: the current images of its owners; former owners have none."""
    found = []
    for kind, ids, images in ((PRODUCT, keys, products), (POST, posts.column(schema.POST_ID), posts)):
        rows = splits.filter(pc.equal(splits.column(schema.OWNER_KIND), kind))
        at = pc.index_in(ids, value_set=rows.column(schema.OWNER_ID))
        shown = [ids, images.column(schema.IMAGE_ID), rows.column(schema.SPLIT).take(at)]
        known = pa.table(shown, names=["id", "image", "split"]).filter(at.is_valid())
        found.append(_uses(schema.SPLITS.name, kind, *known.columns))
        unseen = rows.filter(pc.invert(pc.is_in(rows.column(schema.OWNER_ID), value_set=known.column("id"))))
        nothing = pa.nulls(unseen.num_rows, pa.string())
        found.append(_uses(schema.SPLITS.name, kind, unseen.column(schema.OWNER_ID), nothing, unseen.column(schema.SPLIT)))
    return pa.concat_tables(found)


def uses_of_pairs(pairs: pa.Table) -> pa.Table:
    """Uses in table `pairs`: the post with its photo, the product with its representative image."""
    sides = ((POST, schema.POST_ID, schema.ANCHOR_IMAGE_ID), (PRODUCT, schema.PRODUCT_ID, schema.IMAGE_ID))
    split = pairs.column(schema.SPLIT)
    return pa.concat_tables(
        [_uses(schema.PAIRS.name, kind, pairs.column(i), pairs.column(image), split) for kind, i, image in sides]
    )


def uses_of_outfits(outfits: pa.Table) -> pa.Table:
    """Uses in table `outfits`: the images of the items."""
    lists = outfits.column(schema.ITEMS).combine_chunks()
    images = pc.struct_field(pc.list_flatten(lists), schema.IMAGE_ID)
    split = outfits.column(schema.SPLIT).combine_chunks().take(pc.list_parent_indices(lists))
    return _uses(schema.OUTFITS.name, IMAGE, images, images, split)


def _uses(where: str, kind: str, ids, images, split) -> pa.Table:
    n = len(ids)
    columns = [pa.repeat(where, n), pa.repeat(kind, n), *(_chunked(c) for c in (ids, images, split))]
    return pa.table([_chunked(c) for c in columns], schema=USES)


def _chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def identity_leaks(uses: pa.Table, duplicates: pa.Table | None = None) -> pa.Table:
    """LEAKS of products, posts, images and near-duplicate clusters (of ``duplicates``: image_id, cluster_id), ordered by kind
    and id."""
    shown = uses.filter(uses.column(schema.IMAGE_ID).is_valid())
    where, images, split = (shown.column(c) for c in (WHERE, schema.IMAGE_ID, schema.SPLIT))
    found = [uses.select([KIND, ID, schema.IMAGE_ID, schema.SPLIT])]
    found.append(pa.table([pa.repeat(IMAGE, len(where)), images, images, split], names=found[0].column_names))
    if duplicates is not None:
        at = pc.index_in(images, value_set=duplicates.column(schema.IMAGE_ID))
        clusters = duplicates.column(schema.CLUSTER_ID).take(at)
        named = pa.table([pa.repeat(DUPLICATE, len(where)), clusters, images, split], names=found[0].column_names)
        found.append(named.filter(clusters.is_valid()))
    rows = pa.concat_tables(found).group_by([KIND, ID, schema.SPLIT]).aggregate([(schema.IMAGE_ID, "min")])
    rows = rows.sort_by([(c, "ascending") for c in (KIND, ID, schema.SPLIT)])
    several = rows.group_by([KIND, ID], use_threads=False).aggregate(
        [(schema.SPLIT, "list"), (f"{schema.IMAGE_ID}_min", "list")]
    )
    leaks = several.filter(pc.greater(pc.list_value_length(several.column(f"{schema.SPLIT}_list")), 1))
    images_of_same = _same_images(leaks)
    leaks = leaks.filter(pa.array(~images_of_same))  # a leaking image is reported once, not as a cluster too
    n = leaks.num_rows
    columns = [
        leaks.column(KIND),
        leaks.column(ID),
        leaks.column(f"{schema.SPLIT}_list"),
        leaks.column(f"{schema.IMAGE_ID}_min_list"),
    ]
    return pa.table([*columns, pa.nulls(n, pa.string()), pa.nulls(n, pa.float32())], schema=LEAKS)


def _same_images(leaks: pa.Table) -> np.ndarray:
    kinds, images = leaks.column(KIND).to_pylist(), leaks.column(f"{schema.IMAGE_ID}_min_list").to_pylist()
    return np.array([k == DUPLICATE and len(set(i)) == 1 for k, i in zip(kinds, images)], bool)


def grouped(uses: pa.Table) -> Grouped:
    """The images of all uses, sorted, each in the first of its splits by name."""
    rows = uses.filter(uses.column(schema.IMAGE_ID).is_valid()).group_by([schema.IMAGE_ID]).aggregate([(schema.SPLIT, "min")])
    rows = rows.sort_by(schema.IMAGE_ID)
    splits = rows.column(f"{schema.SPLIT}_min")
    names = sorted(pc.unique(splits).to_pylist())
    group_N = pc.index_in(splits, value_set=pa.array(names, pa.string())).to_numpy().astype(np.int64)
    return Grouped(rows.column(schema.IMAGE_ID).combine_chunks(), group_N, tuple(names))


def picture_leaks(names: pa.Array, splits_N: np.ndarray, confirmed: Confirmed) -> pa.Table:
    """LEAKS of pictures: ``names`` are the images that ``confirmed`` refers to, ``splits_N`` their splits."""
    a, b = confirmed.pairs.T
    first, second = names.take(pa.array(a)), names.take(pa.array(b))
    both = lambda x, y: pa.array(list(map(list, zip(x, y))), pa.list_(pa.string()))  # noqa: E731
    columns = [
        pa.repeat(PICTURE, len(a)),
        pc.binary_join_element_wise(first, second, " "),
        both(splits_N[a].tolist(), splits_N[b].tolist()),
        both(first.to_pylist(), second.to_pylist()),
        pa.array(HOW).take(pa.array(confirmed.how_P.astype(np.int64))),
        pa.array(confirmed.distance_P.astype(np.float32)),
    ]
    return pa.table(columns, schema=LEAKS).sort_by([(schema.DISTANCE, "ascending"), (ID, "ascending")])


def counts(leaks: pa.Table) -> dict[tuple[str, str], int]:
    """Number of leaks by kind (pictures: by how) and splits."""
    found: dict[tuple[str, str], int] = {}
    for row in leaks.select([KIND, "splits", schema.HOW]).to_pylist():
        kind = row[KIND] if row[schema.HOW] is None else f"{row[KIND]}: {row[schema.HOW]}"
        key = kind, " and ".join(sorted(row["splits"]))
        found[key] = found.get(key, 0) + 1
    order = {k: i for i, k in enumerate(KINDS)}
    return dict(sorted(found.items(), key=lambda kv: (order[kv[0][0].split(":")[0]], kv[0])))


def check_tables(asked: list[str], there: list[str]) -> None:
    """Raises UsageError if there is nothing to audit."""
    allowed = [schema.SPLITS.name, schema.PAIRS.name, schema.OUTFITS.name]
    wrong = [t for t in asked if t not in allowed]
    if wrong:
        raise UsageError(f"--tables={asked}: {wrong[0]!r} has no splits; allowed are {allowed}")
    if not there:
        raise UsageError(f"--tables={asked}: none of them is in the store: run 'w2w split' first")
