"""Pairs of looks: pictures of people dressed alike, according to their posts."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from w2w import ids, schema
from w2w.mining.components import components
from w2w.models.looks import LOOK
from w2w.training.encoders.config import POST, PRODUCTS, STYLE, PairConfig

SOURCE = "looks"  # takes the place of a data set's name
_MOST_TAGS = 12  # tags of a post that are used: a list of everything a shop sells means nothing
_COLUMNS = (schema.PAIR_ID, schema.GARMENT_ID, schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY)


def look_pairs(posts: Sequence[Mapping[str, Any]], config: PairConfig, clusters: Mapping[str, str]) -> pa.Table:
    """Rows in the form of table `pairs`. ``posts``: rows with image_id, url, product_ids and style; ``clusters``: each
    picture's near-duplicate cluster, whose members never pair.

    Looks connected, even indirectly, by the properties in ``config.same`` form a group, which is put into product_id. Half of a
    group are anchors (by hash of their image) and half are the gallery: no picture finds itself. Each anchor has up to
    ``config.each`` positives.
    """
    images = sorted({post[schema.IMAGE_ID] for post in posts})
    place = {image: n for n, image in enumerate(images)}
    first: dict[object, int] = {}  # property of posts -> the first picture of one that has it
    told = [(key, place[post[schema.IMAGE_ID]]) for post in posts for key in _keys(post, config)]
    edges = [(first.setdefault(key, at), at) for key, at in told]
    a_E, b_E = np.array(edges, np.int64).reshape(-1, 2).T
    groups: dict[int, list[str]] = {}
    order = np.argsort(ids.hash_keys(pa.array(images, pa.string())), kind="stable")
    roots = components(len(images), a_E, b_E)
    for at in order.tolist():
        groups.setdefault(int(roots[at]), []).append(images[at])
    found = []
    for root in sorted(groups):
        members = groups[root]
        half = -(-len(members) // 2)
        anchors, others = members[:half], members[half:]
        for n, anchor in enumerate(anchors):
            for positive in (others[(n + step) % len(others)] for step in range(min(config.each, len(others)))):
                if clusters.get(anchor, anchor) != clusters.get(positive, positive):
                    found.append((ids.digest(anchor, positive), anchor, images[root], positive, LOOK))
    columns = zip(*found) if found else [[] for _ in _COLUMNS]
    return pa.table({name: pa.array(list(values), pa.string()) for name, values in zip(_COLUMNS, columns)})


def _keys(post: Mapping[str, Any], config: PairConfig) -> Iterator[object]:
    """Posts that share one of these are dressed alike."""
    if POST in config.same and post[schema.URL]:
        yield POST, post[schema.URL]
    if STYLE in config.same and post[schema.STYLE]:
        yield STYLE, post[schema.STYLE]
    if PRODUCTS in config.same:
        tagged = sorted(set(post[schema.PRODUCT_IDS] or ()))
        for some in itertools.combinations(tagged, config.shared) if len(tagged) <= _MOST_TAGS else ():
            yield PRODUCTS, some
