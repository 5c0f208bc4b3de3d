"""Which products are computed again: nights of a whole catalog, without Ray."""

import itertools
import random

import pytest

from tests.unit.nights.nights import without_ray
from tests.unit.recommend.stores import add_vectors, append, fill, product
from w2w import schema
from w2w.recommend.job import Config, Result, main
from w2w.recommend.rules import OutfitConfig
from w2w.recommend.worn import WornConfig
from w2w.stage import Pool
from w2w.table import delta
from w2w.table.current import CurrentRows

NUMBERS, FEW = range(100), OutfitConfig(candidates=3, answers=2)
COLUMNS = [c for c in schema.RECOMMENDATIONS.schema.names if c != schema.FETCHED_AT]


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    without_ray(monkeypatch)


def newest(store: str) -> dict[str, dict]:
    batches = CurrentRows(store, schema.RECOMMENDATIONS).batches(COLUMNS)
    return {row[schema.PRODUCT_ID]: row for batch in batches for row in batch.to_pylist()}


def night(store: str, rules: str = "", config: OutfitConfig = FEW, source: str = "posts", **more) -> tuple[Result, dict]:
    """What the job says, and the rows that it wrote, by product. ``rules``: the text of a file."""
    if rules:
        file = f"{store}-rules.yaml"
        with open(file, "w", encoding="utf-8") as f:
            f.write(rules)
        more["rules"] = file
    pool = Pool(workers=1, batch_rows=16)
    done = main(Config(store=store, outfit=config, worn=WornConfig(source=source), item_rows=16, pool=pool, shown=0, **more))
    return done, {p: row for p, row in newest(store).items() if row[schema.RUN_ID] == done.run_id}


def shown(row: dict) -> set[str]:
    return {i[schema.PRODUCT_ID] for o in row[schema.OUTFITS_LIST] for i in o[schema.ITEMS]}


@pytest.fixture
def store(tmp_path) -> str:
    folder = str(tmp_path / "store")
    fill(folder, NUMBERS, posts=200, pictures=False)
    return folder


def test_a_catalog_that_has_become_empty_ends_all_rows(store):
    _, rows = night(store)
    append(store, schema.PRODUCTS, [product(n, active=False) for n in range(100)], "gone")
    done, made = night(store)
    assert (done.products, done.gone, set(made)) == (0, 100, set(rows))
    assert not any(row[schema.ACTIVE] for row in made.values())
    assert night(store)[0].pending == 0
    append(store, schema.PRODUCTS, [product(n) for n in range(100)], "back")
    again, back = night(store)
    assert {p: row[schema.OUTFITS_LIST] for p, row in back.items()} == {p: row[schema.OUTFITS_LIST] for p, row in rows.items()}
    assert again.products == 100


def test_a_night_computes_what_changed_and_nothing_else(store):
    append(store, schema.PRODUCTS, [product(100)], "late")
    plan, _ = night(store, dry_run=True)
    assert (plan.new, plan.pending) == (101, 101)
    first, rows = night(store)
    assert (first.new, first.pending, first.counts.rejects) == (101, 101, {"no_vector": 1})
    assert len(rows) == 100
    assert all(len(row[schema.OUTFITS_LIST]) == 2 and p in shown(row) for p, row in rows.items())
    again, nothing = night(store)
    assert (again.pending, nothing, again.skipped, again.counts.read) == (0, {}, 101, 0)

    gone = next(p for p in sorted(shown(rows["p000"])) if p != "p000")
    append(store, schema.PRODUCTS, [product(int(gone[1:]), active=False), product(2, price=99.0)], "gone")
    had_it = {p for p, row in rows.items() if gone in shown(row)} - {gone}
    third, made = night(store)
    assert third.gone == 1
    assert not made[gone][schema.ACTIVE]
    assert had_it <= set(made)
    assert len(made) == third.changed - (third.as_before or 0) + 1 < 40
    assert third.counts.read == third.pending == third.changed + 1 < 60, "few are asked at all"
    assert all(gone not in shown(row) for row in made.values())
    # it comes back: the rows are those of the first night, and are computed again since they are not the newest
    append(store, schema.PRODUCTS, [product(int(gone[1:]))], "back")
    fourth, back = night(store)
    assert set(back) == set(made)
    assert fourth.gone == 0
    same = (schema.ROW_DIGEST, schema.OUTFITS_LIST)
    assert all(back[p][c] == rows[p][c] for p in back for c in same)


def test_a_new_product_is_new_to_those_whom_it_suits(store):
    night(store)
    append(store, schema.PRODUCTS, [product(101)], "late")
    add_vectors(store, [101])
    found, made = night(store)
    assert found.new == 1
    assert 0 < found.changed < 60
    assert made["p101"][schema.OUTFITS_LIST]


def test_a_rule_makes_stale_what_it_touches(store):
    _, rows = night(store)
    banned = next(p for p in sorted(shown(rows["p000"])) if p != "p000")
    rules = f"ban:\n  - {{product: {banned}}}\n"
    found, made = night(store, rules)
    assert 0 < found.changed < 60
    assert len(made) < 40
    assert made[banned][schema.REASON] == "it is banned"
    assert {p for p, row in rows.items() if banned in shown(row)} <= set(made)
    moved = f"\n\n# a comment\n{rules}"
    assert night(store, moved)[0].pending == 0
    assert night(store, moved, OutfitConfig(candidates=3, answers=1))[0].changed == 100, "an option changes all"


def test_new_posts_change_every_row(store):
    night(store)
    row = {"post_id": "post-x", "url": None, "image_id": "none", "image_uri": "u", "product_urls": [], "active": True}
    append(store, schema.POSTS, [row | {"product_ids": ["p000", "p006"], "row_digest": "d", "fetched_at": 0}], "late")
    assert night(store)[0].changed == 100
    assert night(store, source="none")[0].changed == 100


RULES = (
    "",
    "",
    "ban:\n  - {colour: red, for: {category: dress}}\n",
    "pin:\n  - {product: [p001, p006], for: {brand: a}}\n",
    "pin:\n  - {category: bag}\n",
    "price: {max: 60}\nmax_uses: 1\n",
    "total: {max: 120}\nbrands: different\n",
    "never_together:\n  - [{brand: a}, {colour: red}]\n",
)


@pytest.mark.parametrize("seed", [0, 2])
def test_every_night_is_as_one_from_scratch(tmp_path, seed):
    """Random changes of catalog and rules, nights that are cut short, and products that come and go meanwhile: after each
    night that comes to its end, the rows are those of a store that never had another."""
    rng, store = random.Random(seed), str(tmp_path / "store")
    fill(store, range(60), posts=60, pictures=False)
    add_vectors(store, range(60, 90))
    sold, few, rules = {n: product(n) for n in range(60)}, list[int](), ""
    for turn in range(8):
        for _ in range(rng.randint(1, 3)):
            number, kind = rng.randrange(90), rng.choice(("gone", "price", "stock", "there", "picture"))
            row = sold.get(number) or product(number)
            if kind == "price":
                row = row | {"price": rng.choice((5.0, 70.0, 200.0))}
            elif kind == "stock":
                row = row | {"attributes": [*row["attributes"][:1], ("stock", rng.choice(("0", "4")))]}
            elif kind == "picture":
                row = row | {"image_id": product(rng.randrange(90))["image_id"]}
            sold[number] = row | {"active": kind != "gone" or number < 10, "fetched_at": turn + 1}
            append(store, schema.PRODUCTS, [sold[number]], f"night-{turn}")
        rules = rng.choice(RULES) if rng.random() < 0.3 else rules
        if turn % 2:
            night(store, rules, limit=rng.randint(1, 9))
            continue
        done, _ = night(store, rules)
        few.append(done.counts.read)
        fresh = str(tmp_path / f"fresh-{turn}")
        fill(fresh, [], posts=0)
        append(fresh, schema.PRODUCTS, [product(n) for n in range(60)] + list(sold.values()))
        add_vectors(fresh, range(90))
        append(fresh, schema.POSTS, delta.read(store, schema.POSTS, schema.POSTS.schema.names).to_pylist())
        night(fresh, rules)
        mine, theirs = ({p: r for p, r in newest(s).items() if r[schema.ACTIVE]} for s in (store, fresh))
        for p, c in itertools.product(sorted(mine.keys() | theirs.keys()), (schema.ROW_DIGEST, schema.OUTFITS_LIST)):
            assert mine[p][c] == theirs[p][c], (turn, p)
        assert night(store, rules)[0].pending == 0
    assert min(few) < 40, "not all are asked every night"
