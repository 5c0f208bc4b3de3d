"""Which products are computed again: the whole catalog's questions, digests and rows, without Ray."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.unit.recommend.stores import add_vectors, append, fill, product
from w2w import schema
from w2w.models.config import EncoderConfig
from w2w.recommend import flow
from w2w.recommend.flow_catalog import source_of, version_of, write_work
from w2w.recommend.house import House, read_house
from w2w.recommend.rules import OutfitConfig
from w2w.recommend.stage import Recommend
from w2w.recommend.worn import WornConfig
from w2w.table import work
from w2w.table.pending import read_item

NUMBERS, FEW = range(100), OutfitConfig(candidates=3, answers=2)


def night(store: str, run: str, house: House = House(), config: OutfitConfig = FEW, source: str = "posts"):
    """What a run of the job does: (what was to be done, the rows that it wrote, by product, rejected products)."""
    catalog = flow.read_catalog(store, EncoderConfig(), None, "none", [])
    scorer = flow.scored(store, None, WornConfig(source=source), catalog)
    stylist = flow.stylist_of(catalog, house, scorer, config)
    version = version_of(scorer.version, stylist, config)
    found = write_work(store, run, stylist, catalog.without_vector, version, 16, dry_run=False)
    folder, made, rejected = work.folder(store, run), {}, []
    for item in source_of(store, run, found, 16).items if found.pending else ():
        system, root = flow.storage.filesystem(folder)
        for rows in read_item(system, root, item.to_pylist()[0], pq.read_schema(f"{root}/{name(item)}").names, 64):
            done = Recommend(stylist, version, run)(rows)
            bad = done.column(schema.REJECT_CODE).is_valid()
            rejected += done.filter(bad).column(schema.PRODUCT_ID).to_pylist()
            good = done.filter(pc.invert(bad)).select(schema.RECOMMENDATIONS.schema.names)
            made |= {row[schema.PRODUCT_ID]: row for row in good.to_pylist()}
    if made:
        append(store, schema.RECOMMENDATIONS, list(made.values()), run)
    return found, made, rejected


def name(item: pa.Table) -> str:
    return item.column("path")[0].as_py()


def shown(row: dict) -> set[str]:
    return {i[schema.PRODUCT_ID] for o in row[schema.OUTFITS_LIST] for i in o[schema.ITEMS]}


@pytest.fixture
def store(tmp_path) -> str:
    folder = str(tmp_path / "store")
    fill(folder, NUMBERS, posts=200, pictures=False)
    return folder


def test_a_night_computes_what_changed_and_nothing_else(store):
    append(store, schema.PRODUCTS, [product(100)], "late")
    first, rows, rejected = night(store, "one")
    assert (first.products, first.new, first.pending, rejected) == (101, 101, 101, ["p100"])
    assert len(rows) == 100
    assert all(len(row[schema.OUTFITS_LIST]) == 2 and p in shown(row) for p, row in rows.items())
    again, nothing, _ = night(store, "two")
    assert (again.new, nothing, again.done) == (1, {}, 100), "what has no vector is asked about until its reject is there"

    gone = next(p for p in sorted(shown(rows["p000"])) if p != "p000")
    append(store, schema.PRODUCTS, [product(int(gone[1:]), active=False), product(2, price=99.0)], "gone")
    had_it = {p for p, row in rows.items() if gone in shown(row)} - {gone}
    third, made, _ = night(store, "three")
    assert third.gone == 1
    assert not made[gone][schema.ACTIVE]
    assert had_it <= set(made)
    assert len(made) == third.changed + 1 < 40
    assert all(gone not in shown(row) for row in made.values())
    # it comes back: the rows are those of the first night, and are computed again since they are not the newest
    append(store, schema.PRODUCTS, [product(int(gone[1:]))], "back")
    fourth, back, _ = night(store, "four")
    assert set(back) == set(made)
    assert (fourth.gone, fourth.changed) == (0, len(made))
    same = (schema.ROW_DIGEST, schema.OUTFITS_LIST)
    assert all(back[p][c] == rows[p][c] for p in back for c in same)


def test_a_new_product_is_new_to_those_whom_it_suits(store):
    night(store, "one")
    append(store, schema.PRODUCTS, [product(101)], "late")
    add_vectors(store, [101])
    found, made, _ = night(store, "two")
    assert found.new == 1
    assert 0 < found.changed < 60
    assert made["p101"][schema.OUTFITS_LIST]


def test_a_rule_makes_stale_what_it_touches(store):
    _, rows, _ = night(store, "one")
    banned = next(p for p in sorted(shown(rows["p000"])) if p != "p000")
    house = read_house(f"ban:\n  - {{product: {banned}}}\n".encode(), "rules.yaml")
    found, made, _ = night(store, "two", house)
    assert 0 < found.changed < 40
    assert made[banned][schema.REASON] == "it is banned"
    assert {p for p, row in rows.items() if banned in shown(row)} <= set(made)
    moved = read_house(f"\n\n# a comment\nban:\n  - {{product: {banned}}}\n".encode(), "rules.yaml")
    assert night(store, "three", moved)[0].pending == 0
    assert night(store, "four", moved, OutfitConfig(candidates=3, answers=1))[0].changed == 100, "an option changes all"


def test_new_posts_change_every_row(store):
    night(store, "one")
    row = {"post_id": "post-x", "url": None, "image_id": "none", "image_uri": "u", "product_urls": [], "active": True}
    append(store, schema.POSTS, [row | {"product_ids": ["p000", "p006"], "row_digest": "d", "fetched_at": 0}], "late")
    assert night(store, "two")[0].changed == 100
    assert night(store, "three", source="none")[0].changed == 100
