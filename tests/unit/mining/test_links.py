"""What a shop says is sold with what, as outfits of two: `w2w convert links`, and the scorer that counts them."""

from pathlib import Path

import pytest

from tests.unit.recommend.stores import append, fill, product
from w2w import schema
from w2w.errors import UsageError
from w2w.mining.sets import SetConfig, job
from w2w.recommend import job as recommend
from w2w.recommend.worn import WornConfig
from w2w.table import delta

STYLES = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    """Products p000 to p099; number % 5 is the class, number // 5 % 4 the style; p100 has no picture, p101 is no garment."""
    folder = str(tmp_path_factory.mktemp("links") / "store")
    fill(folder, range(100), pictures=False)
    append(folder, schema.PRODUCTS, [product(100, image_id=None), product(101, category="toys")], "more")
    return folder


def convert(store: str, file: Path, **more) -> job.Result:
    options = {name: more.pop(name) for name in list(more) if name in ("columns", "key", "kinds", "source")}
    config = SetConfig(format="links", path=str(file), val_share=0.2, test_share=0.2, **options)
    return job.main(job.Config(store=store, set=config, max_reject_rate=0.7, **more))


def rows(store: str, source: str = "links") -> dict[str, dict]:
    found = delta.read(store, schema.OUTFITS, schema.OUTFITS.schema.names, source=source).to_pylist()
    return {row[schema.OUTFIT_ID]: row for row in found}


def test_links_are_outfits_and_what_is_wrong_is_rejected(store, tmp_path):
    (tmp_path / "links.csv").write_text(
        "sku,linked_sku,kind\n"
        "p000,p001,related\n"
        "p001,p000,related\n"  # the other way round: once
        "p001,p002,Cross-Sell\n"
        "p003,p007,upsell\n"  # bought instead
        "p010,p011,related\n"
        "p000,p005,related\n"  # two tops
        "p000,p999,related\n"
        "p000,p100,related\n"
        "p000,p101,related\n"
        "p000,,related\n"
        "p000\n"
    )
    plan = convert(store, tmp_path / "links.csv", dry_run=True)
    assert (plan.rows, plan.versions) == ({"outfits": 3}, {})
    done = convert(store, tmp_path / "links.csv")
    assert (done.rows, done.counts.read, done.counts.out) == ({"outfits": 3}, 9, 3)
    assert done.counts.rejects == {
        "missing_slot": 1,
        "unknown_product": 1,
        "no_photo": 1,
        "no_category": 1,
        "missing_field": 1,
        "malformed_row": 1,
    }
    said = delta.read(store, schema.REJECTS, [schema.KEY, schema.REJECT_CODE]).to_pylist()
    assert ("links/links.csv:8", "unknown_product") in {(r[schema.KEY], r[schema.REJECT_CODE]) for r in said}
    made = rows(store)
    assert list(made) == ["links/p000+p001", "links/p001+p002", "links/p010+p011"]
    assert [i[schema.SLOT] for i in made["links/p001+p002"][schema.ITEMS]] == ["bottom", "shoes"]
    assert made["links/p000+p001"][schema.ITEMS][0][schema.ITEM_ID] == product(0)["image_id"]
    assert made["links/p000+p001"][schema.SPLIT] == made["links/p001+p002"][schema.SPLIT], "what is connected is in one split"
    again = convert(store, tmp_path / "links.csv")
    assert (again.unchanged, again.versions, again.rows) == (("outfits",), {}, {"outfits": 3})
    both = convert(store, tmp_path / "links.csv", kinds=["up-sell"], source="instead")
    assert (both.rows, list(rows(store, "instead"))) == ({"outfits": 1}, ["instead/p003+p007"])
    assert len(rows(store)) == 3, "each source is a snapshot of its own"


def test_columns_and_keys_have_other_names(store, tmp_path):
    file = tmp_path / "links.csv"
    file.write_text("a,b\nred,blue\n")
    with pytest.raises(
        UsageError, match=r"links\.csv, line 1: no column for it: name one by set\.columns\.product; it has a, b"
    ):
        convert(store, file)
    with pytest.raises(UsageError, match=r"no column 'c'"):
        convert(store, file, columns={"product": "c"})
    named = convert(store, file, columns={"product": "a", "linked": "b"}, key="colour", source="colours")
    # the first red product is p001, a bottom, the first blue one p000, a top
    (row,) = rows(store, "colours").values()
    assert [i[schema.ITEM_ID] for i in row[schema.ITEMS]] == [product(0)["image_id"], product(1)["image_id"]]
    assert named.counts.rejected == 0
    with pytest.raises(UsageError, match="name the CSV with the links"):
        convert(store, tmp_path)
    with pytest.raises(UsageError, match=r"set\.key: is of set\.format=links"):
        SetConfig(format="pairs", key="sku")


def test_the_scorer_that_counts_knows_links(store, tmp_path):
    style = {n: n // 5 % STYLES for n in range(100)}
    lines = [f"p{a:03d},p{b:03d},related" for a in range(100) for b in range(100) if a % 5 < b % 5 and style[a] == style[b]]
    (tmp_path / "all.csv").write_text("\n".join(["product,linked,kind", *lines[::3]]) + "\n")
    convert(store, tmp_path / "all.csv")
    for source in ("links", "auto"):
        done = recommend.main(recommend.Config(store=store, product="p000", worn=WornConfig(source=source), shown=0))
        assert done.outfits_known == len(lines[::3])
        assert done.scorer.endswith("worn outfits (links)")
        for outfit in done.outfits[0].outfits:
            assert {style[int(i.product_id[1:])] for i in outfit.items} == {0}
