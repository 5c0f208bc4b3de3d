"""A change of models by a bridge: new queries and new products in the old index, nights within a budget, over and back."""

import numpy as np
import pytest

import w2w
from tests.cluster.shops import picture, write_feed, write_shop
from w2w import schema
from w2w.errors import UsageError
from w2w.models.config import FASHION, LITE0
from w2w.table import bridges, delta
from w2w.table.current import current_products

OLD_NUM, NEW_NUM = 130, 6
POOL = {"workers": 1}


def vectors_of(store: str, model: str) -> int:
    return delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID], model_version=model).num_rows


def first_of(store: str, photo) -> tuple[str, float]:
    """What `w2w find` shows first, with the encoder that the index names."""
    product = w2w.load_finder(store, whole=True)(str(photo))[0].garments[0].products[0]
    return product.product_id, product.score


@pytest.mark.slow
def test_over_a_bridge_and_back(tmp_path):
    store, shop = str(tmp_path / "store"), tmp_path / "shop"
    feed = {"uri": str(write_shop(shop, OLD_NUM))}
    w2w.ingest(store=store, feed=feed)
    lite0 = {"name": LITE0}
    old = w2w.embed(store=store, encoder=lite0, pool=POOL).model_version
    before = w2w.index(store=store, encoder=lite0)
    new = {"name": FASHION}

    made = w2w.bridge(store=store, encoder=new, sample=120, min_recall=0, pool=POOL)
    assert (made.to_embed, made.counts.out, vectors_of(store, made.new)) == (made.sample, made.sample, made.sample)
    assert made.sample < OLD_NUM
    assert w2w.bridge(store=store, encoder=new, sample=120, min_recall=0).unchanged
    over = new | {"bridge": made.bridge}

    # new queries in the old index
    with pytest.raises(UsageError, match="cannot be compared"):
        w2w.search(store=store, feed=feed, encoder=new, shown=0)
    asked = w2w.search(store=store, feed=feed, encoder=over, shown=0, pool=POOL)
    assert (asked.index_version, asked.counts.out) == (before.published, OLD_NUM)
    found = {
        r[schema.QUERY_ID]: r[schema.NEIGHBOUR_LIST]
        for r in delta.read(store, schema.NEIGHBOURS, [schema.QUERY_ID, schema.NEIGHBOUR_LIST]).to_pylist()
    }
    itself = [any(hit[schema.PRODUCT_ID] == query for hit in hits) for query, hits in found.items()]
    assert np.mean(itself) > 0.3  # of 130, ten found: at random .08

    # new products beside the old ones
    rng = np.random.default_rng(99)
    for i in range(OLD_NUM, OLD_NUM + NEW_NUM):
        (shop / "images" / f"{i}.jpg").write_bytes(picture(rng))
    write_feed(shop, range(OLD_NUM + NEW_NUM))
    w2w.ingest(store=store, feed=feed)
    embedded = w2w.embed(store=store, encoder=over, pool=POOL)
    assert (embedded.model_version, embedded.counts.out) == (made.new, NEW_NUM)
    mixed = w2w.index(store=store, encoder=over)
    assert (mixed.model_version, mixed.bridged, mixed.cut_over) == (made.bridge_version, NEW_NUM, None)
    assert mixed.counts.out == OLD_NUM + NEW_NUM
    opened, bridge = w2w.open(store).index(), bridges.read(made.bridge)
    vectors = delta.read(store, schema.EMBEDDINGS, [schema.VECTOR, schema.OWNER_ID], model_version=made.new).to_pylist()
    mapped_ND = bridge(np.float32([row[schema.VECTOR] for row in vectors]))
    hits = opened.search(mapped_ND, k=1).to_pylist()
    of_new = {row[schema.IMAGE_ID] for row in current_products(store, [schema.PRODUCT_ID, schema.IMAGE_ID]).to_pylist()
              if row[schema.PRODUCT_ID] >= f"p{OLD_NUM:05d}"}  # fmt: skip
    own = [(row[schema.OWNER_ID], hit) for row, hit in zip(vectors, hits, strict=True) if row[schema.OWNER_ID] in of_new]
    assert len(own) == NEW_NUM
    assert all(hit[schema.IMAGE_ID] == image and hit["score"] > 0.999 for image, hit in own)
    assert w2w.index(store=store, encoder=over).unchanged
    with pytest.raises(UsageError, match="cannot be compared"):  # the old model's queries are not those of the bridge
        w2w.search(store=store, feed=feed, encoder=lite0, shown=0)
    photo = shop / "images" / f"{OLD_NUM}.jpg"
    assert first_of(store, photo)[0] == f"p{OLD_NUM:05d}"

    # the rest within a budget
    left = OLD_NUM - made.sample
    short = w2w.embed(store=store, encoder=new, pool=POOL, budget={"minutes": 1e-3})
    assert (short.counts.read, short.left, short.runs_left) == (0, left, None)
    rest = w2w.embed(store=store, encoder=new, pool=POOL, budget={"minutes": 5})
    assert (rest.counts.out, rest.left) == (left, None)
    assert w2w.index(store=store, encoder=over, dry_run=True).cut_over

    # over, and back
    cut = w2w.index(store=store, encoder=new)
    assert (cut.model_version, cut.bridged) == (made.new, None)
    assert w2w.index(store=store, encoder=over).unchanged
    assert w2w.search(store=store, feed=feed, encoder=over, shown=0, pool=POOL).index_version == cut.published
    assert first_of(store, photo)[1] > 0.999
    assert w2w.index(store=store, rollback=True).published == mixed.published
    assert w2w.search(store=store, feed=feed, encoder=over, shown=0, pool=POOL).index_version == mixed.published
    assert w2w.index(store=store, encoder=over).unchanged
    assert vectors_of(store, old) == OLD_NUM
