"""What `w2w tag` says of products, against what their feeds say."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import UsageError
from w2w.garments.classifier import HeadConfig, held_out
from w2w.metrics.retrieval import by_group
from w2w.table.current import current_products
from w2w.table.pending import lookup
from w2w.training.classifier.flow import clusters
from w2w.training.tags.heads import Tagger


@dataclass(frozen=True)
class Told:
    """By product and attribute: what the feed says, and what the tagger is sure of, if of anything. ``keys``: near-duplicates
    share one."""

    owners: list[str]
    attributes: list[str]
    truth: list[str]
    said: list[str | None]
    keys: list[str]


def read_told(store: str, tagger: Tagger, version: str) -> Told:
    """Raises UsageError if nothing can be compared."""
    columns = [
        schema.PRODUCT_ID,
        schema.IMAGE_ID,
        schema.ACTIVE,
        schema.ATTRIBUTES,
        schema.CATEGORY,
        schema.BRAND,
        schema.COLOUR,
    ]
    products = [p for p in current_products(store, columns).to_pylist() if p[schema.ACTIVE] and p[schema.IMAGE_ID]]
    images = pa.array(sorted({p[schema.IMAGE_ID] for p in products}), pa.string())
    rows = lookup(store, schema.TAGGED, images, [schema.OWNER_ID, schema.TAGS], stage_version=version)
    seen = {
        image: {tag[schema.ATTRIBUTE]: tag[schema.VALUE] for tag in tags}
        for image, tags in zip(rows.column(0).to_pylist(), rows.column(1).to_pylist())
    }
    cluster_of = clusters(store, images)[1] if products else {}
    known = {name: {v.casefold(): v for v in head.classifier.labels} for name, head in tagger.heads.items()}
    found: list[tuple[str, str, str, str | None, str]] = []
    for product in products:
        feed = {schema.COLOUR: product[schema.COLOUR]} | dict(product[schema.ATTRIBUTES] or ())  # a shop may call it color
        feed = _folded(feed | {c: product[c] for c in (schema.CATEGORY, schema.BRAND)})
        for name, said in seen.get(product[schema.IMAGE_ID], {}).items():
            truth = known.get(name, {}).get(feed.get(name.casefold(), ""))
            if truth is not None:
                image = product[schema.IMAGE_ID]
                found.append((product[schema.PRODUCT_ID], name, truth, said, cluster_of.get(image, image)))
    if found and tagger.test_share:
        config = HeadConfig(test_share=tagger.test_share)
        found = [one for one, held in zip(found, held_out([one[-1] for one in found], config)) if held]
    if not found:
        raise UsageError(
            f"no product with a row of this tagger in table `attributes` has a value that it knows in an attribute of its feed "
            f"called {', '.join(tagger.heads)}: run 'w2w tag' first, or teach one your names with --learn"
        )
    return Told(*map(list, zip(*found)))


def _folded(feed: Mapping[str, str | None]) -> dict[str, str]:
    return {name.casefold(): " ".join(value.split()).casefold() for name, value in feed.items() if value}


def figures(told: Told, rng: np.random.Generator) -> pa.Table:
    """METRICS_SCHEMA: coverage of all, and precision of the sure ones."""
    sure = np.array([said is not None for said in told.said])
    right = np.array([truth == said for truth, said in zip(told.truth, told.said)], float)
    names, keys = np.array(told.attributes, object), np.array(told.keys, object)
    parts = [by_group({("coverage", 0): sure.astype(float)}, names, rng, keys)]
    if sure.any():
        parts.append(by_group({("precision", 0): right[sure]}, names[sure], rng, keys[sure]))
    return pa.concat_tables(parts)
