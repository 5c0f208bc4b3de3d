"""`w2w recommend` of a whole catalog: what is computed again, and what a killed run leaves."""

from dataclasses import replace

import pytest

from tests.unit.recommend.stores import add_vectors, append, fill, product
from w2w import schema
from w2w.engine.cluster import RayConfig
from w2w.engine.run import run_stages
from w2w.errors import JobFailed, UsageError
from w2w.recommend import job
from w2w.recommend.job import Config, main
from w2w.recommend.rules import OutfitConfig
from w2w.recommend.worn import WornConfig
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.current import CurrentRows

NUMBERS = range(60)


def newest(store: str) -> dict[str, dict]:
    columns = [c for c in schema.RECOMMENDATIONS.schema.names if c not in (schema.FETCHED_AT, schema.RUN_ID, schema.FLOORS)]
    batches = CurrentRows(store, schema.RECOMMENDATIONS).batches(columns)
    return {row[schema.PRODUCT_ID]: row for batch in batches for row in batch.to_pylist()}


def config(store: str) -> Config:
    few = OutfitConfig(candidates=3, answers=2)
    return Config(store=store, outfit=few, item_rows=8, pool=Pool(workers=1, batch_rows=4), shown=3, ray=RayConfig(num_cpus=2))


def test_only_what_changed_is_computed_again(tmp_path):
    store = str(tmp_path / "store")
    fill(store, NUMBERS, posts=60)
    append(store, schema.PRODUCTS, [product(60)], "late")  # has no vector
    plan = main(replace(config(store), dry_run=True))
    assert (plan.pending, plan.new, delta.open_table(store, schema.RECOMMENDATIONS)) == (61, 61, None)
    first = main(config(store))
    assert (first.counts.read, first.counts.out, first.counts.rejects) == (61, 60, {"no_vector": 1})
    rows = newest(store)
    assert len(rows) == 60
    assert all(len(row[schema.OUTFITS_LIST]) == 2 for row in rows.values())
    assert rows["p000"][schema.OUTFITS_LIST][0][schema.ITEMS][0][schema.PRODUCT_ID] == "p000"
    alone = main(replace(config(store), product="p000"))
    told = [[i.product_id for i in o.items] for o in alone.outfits[0].outfits]
    assert told == [[i[schema.PRODUCT_ID] for i in o[schema.ITEMS]] for o in rows["p000"][schema.OUTFITS_LIST]]
    again = main(config(store))
    assert (again.pending, again.counts.read, again.skipped) == (0, 0, 61)

    # a price says nothing where no rule looks at it; a product that is gone is missed by those that had it among candidates
    gone = rows["p001"][schema.OUTFITS_LIST][0][schema.ITEMS][0][schema.PRODUCT_ID]
    changed = [product(2, price=99.0, fetched_at=5), product(int(gone[1:]), active=False, fetched_at=5)]
    append(store, schema.PRODUCTS, changed, "night")
    add_vectors(store, [60])
    night = main(config(store))
    assert night.gone == 1
    assert night.new == 1
    assert 0 < night.changed < 45
    assert night.counts.read == night.pending == night.changed + 2
    after = newest(store)
    assert not after[gone][schema.ACTIVE]
    stale = {p for p, row in after.items() if row[schema.ROW_DIGEST] != rows.get(p, {}).get(schema.ROW_DIGEST)}
    assert len(stale) == night.pending - (night.as_before or 0) < 32
    shown = {
        i[schema.PRODUCT_ID]
        for r in after.values()
        if r[schema.ACTIVE]
        for o in r[schema.OUTFITS_LIST]
        for i in o[schema.ITEMS]
    }
    assert gone not in shown
    fresh = str(tmp_path / "fresh")  # the same catalog in a store that had no other night
    fill(fresh, NUMBERS, posts=60)
    append(fresh, schema.PRODUCTS, [product(60), *changed], "night")
    add_vectors(fresh, [60])
    main(config(fresh))
    untouched = newest(fresh)
    assert {p: r for p, r in after.items() if p != gone} == untouched


def test_a_run_that_was_stopped_goes_on_to_the_same_rows(tmp_path, monkeypatch):
    store, whole = str(tmp_path / "store"), str(tmp_path / "whole")
    for one in (store, whole):
        fill(one, NUMBERS, posts=60, pictures=False)
    main(replace(config(whole), shown=0))
    some = main(replace(config(store), limit=25, shown=0))
    assert (some.counts.read, some.pending) == (25, 60)

    def dies(*arguments, **options):
        run_stages(*arguments, **options)
        raise JobFailed("the driver dies after its last commit")

    monkeypatch.setattr("w2w.engine.run.run_stages", dies)
    with pytest.raises(JobFailed, match="the driver dies"):
        main(replace(config(store), limit=20, shown=0))
    monkeypatch.undo()
    rest = main(replace(config(store), shown=0))
    assert (rest.skipped, rest.counts.read) == (45, 15)
    assert newest(store) == newest(whole)
    assert not any((tmp_path / "store" / "_work").iterdir())
    assert job.STAGE


@pytest.mark.slow
def test_attributes_that_are_counted_make_rows_stale(tmp_path):
    """A product that is only called another colour: the rows are those of a store that always had it so."""
    store, other = str(tmp_path / "store"), str(tmp_path / "other")
    for place in (store, other):
        fill(place, NUMBERS, posts=60)
    asked = replace(config(store), worn=WornConfig(attributes=["colour"]), shown=0)
    assert main(asked).scorer == "counts of 60 worn outfits (posts, by looks, colour)"
    assert main(asked).pending == 0
    late = [product(7, attributes=[("colour", "blue")], fetched_at=5)]  # it was red
    append(store, schema.PRODUCTS, late, "night")
    append(other, schema.PRODUCTS, late, "night")
    assert main(asked).counts.out > 0
    main(replace(asked, store=other))
    assert newest(store) == newest(other)
    with pytest.raises(UsageError, match=r"--worn.attributes: no product has an attribute 'color'. Did you mean 'colour'"):
        main(replace(asked, worn=WornConfig(attributes=["color"])))
    with pytest.raises(UsageError, match=r"only outfits of posts name their products"):
        main(replace(asked, worn=WornConfig("links", attributes=["colour"])))
    empty = str(tmp_path / "empty")
    fill(empty, NUMBERS)
    with pytest.raises(UsageError, match=r"no post of the store tags two products"):
        main(replace(asked, store=empty))
