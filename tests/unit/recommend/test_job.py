"""`w2w recommend` of a few things: in this process, without Ray."""

import json
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup

from tests.unit.recommend.stores import STYLES, append, fill, picture, product
from tests.unit.web.webs import Page, serve
from w2w import schema
from w2w.errors import Reject, RejectCode, UsageError
from w2w.recommend import flow_photo, job
from w2w.recommend.answers import Item, lines, recommended
from w2w.recommend.job import Config, main
from w2w.recommend.rules import OutfitConfig
from w2w.recommend.worn import WornConfig
from w2w.web.fetch import ListedFetchConfig

NUMBERS = range(100)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("shop") / "store")
    fill(folder, NUMBERS, posts=80)
    return folder


def style(product_id: str) -> int:
    return int(product_id[1:]) // 5 % STYLES


def test_a_product_is_completed_with_what_was_worn_with_its_look(store):
    done = main(Config(store=store, product="p000"))
    (answer,) = done.outfits
    assert (done.outfits_known, done.products, done.counts.read) == (80, 100, 1)
    assert done.scorer == "counts of 80 worn outfits (posts)"
    assert len(answer.outfits) == 5
    for outfit in answer.outfits:
        assert [i.category for i in outfit.items] == ["top", "bottom", "shoes"]
        assert {style(i.product_id) for i in outfit.items} == {0}
        assert outfit.score == pytest.approx(np.exp(np.mean(np.log([p.score for p in outfit.pairs]))), rel=1e-5)
        assert (outfit.total, outfit.currency) == (sum(i.price for i in outfit.items), "EUR")
    (line,) = Path(done.lines).read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["outfits"][0]["items"][1]["product_id"] == answer.outfits[0].items[1].product_id
    page = Path(done.report).read_text(encoding="utf-8")
    assert Path(done.report).parents[1].joinpath("latest.html").read_text(encoding="utf-8") == page
    soup = BeautifulSoup(page, "html.parser")
    assert len(soup.select(".look")) == len(soup.select(".outfit")) == 5
    first = answer.outfits[0]
    assert soup.select_one(".look h3").text == f"Outfit 1 · {first.total:.2f} EUR"
    assert soup.select_one(".look summary").text == f"score {first.score:.2f}: why"
    assert f", in all {first.total:.2f} EUR  (" in [*lines(done.outfits)][1]
    assert "top with bottom" in soup.select_one(".look details li").text
    assert [li["data-product"] for li in soup.select_one(".look .new").select("li")] == [
        i.product_id for i in answer.outfits[0].items[1:]
    ]
    assert "<b>0</b>" in soup.select_one(".given .name").text, "titles are text"
    again = main(Config(store=store, product="p000", shown=0))
    assert (again.outfits, again.report) == (done.outfits, None)
    plan = main(Config(store=store, product="p000", dry_run=True))
    assert (plan.outfits, plan.lines, plan.outfits_known) == ((), None, 80)


def test_items_that_lack_nothing_are_scored(store):
    good, bad = (main(Config(store=store, items=items, shown=0)).outfits[0] for items in ("p000,p001,p002", "p000, p006,p012"))
    assert [len(a.outfits) for a in (good, bad)] == [1, 1]
    assert good.outfits[0].score > bad.outfits[0].score + 0.2
    assert good.outfits[0].total == 10 + 11 + 12
    two = main(Config(store=store, items=["p000", "p001"], shown=0, outfit=OutfitConfig(extras=("bag",), answers=2)))
    assert [[i.category for i in o.items] for o in two.outfits[0].outfits] == [["top", "bottom", "shoes", "bag"]] * 2
    assert all(o.items[0].product_id == "p000" and o.items[1].product_id == "p001" for o in two.outfits[0].outfits)


@pytest.mark.parametrize(
    ("others", "total"),
    [
        ((), (10.1, "EUR")),
        ((Item("bag", None, given=True),), (10.1, "EUR")),  # of a photo: nobody sells it
        ((Item("bag", "b", price=20.2, currency="EUR", given=True),), (30.3, "EUR")),
        ((Item("bag", "b", given=True),), (None, None)),
        ((Item("bag", "b", price=20.2, currency="USD"),), (None, None)),
    ],
)
def test_a_total_is_of_the_whole_outfit(others, total):
    found = recommended(1, 0.5, (Item("shoes", "s", price=10.1, currency="EUR"), *others), ())
    assert (found.total, found.currency) == total
    assert recommended(1, 0.5, (Item("bag", None, given=True),), ()).total is None


def test_without_outfits_looks_decide(store):
    done = main(Config(store=store, product="p003", worn=WornConfig(source="none"), shown=0))
    assert (done.outfits_known, done.scorer) == (0, "looks alone: it knows no outfit that was worn")
    assert [[i.category for i in o.items] for o in done.outfits[0].outfits] == [["dress", "shoes"]] * 5


def test_rules_of_a_file_are_met_and_told(store, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("pin:\n  - {category: bag}\nban:\n  - {colour: red}\nprice: {max: 100}\nmax_uses: 1\n")
    done = main(Config(store=store, product="p003", rules=str(rules), shown=0))
    found = [i for o in done.outfits[0].outfits for i in o.items if not i.given]
    assert {i.category for i in found} == {"shoes", "bag"}
    assert all(int(i.product_id[1:]) % 3 == 0 and i.price <= 100 for i in found)
    assert len({i.product_id for i in found if i.category == "shoes"}) == len(done.outfits[0].outfits)
    assert done.left_out["banned"] == sum(1 for n in NUMBERS if n % 3)


def test_a_place_that_stays_empty_says_why(store, tmp_path):
    rules = tmp_path / "rules.yaml"

    def said(text: str, **more) -> str | None:
        rules.write_text(text)
        return main(Config(store=store, product="p000", rules=str(rules), shown=0, **more)).outfits[0].says

    extras = OutfitConfig(extras=("bag", "hat"))
    assert said("", outfit=extras) == "you sell no hats"
    assert (
        said("ban: [{category: bag}]", outfit=extras) == "none of the bags can be shown: 20 banned by line 1; you sell no hats"
    )
    some = said("price: {min: 30}\nonly: [{category: shoes, colour: green}]\nban: [{category: shoes, brand: a}]")
    # 10 of 20 pairs of shoes are of brand a; p007 and p017 of the others cost less than 30, and none is green
    assert some == (
        "there is nothing to show for shoes: none of the shoes can be shown: 10 banned by line 3, "
        "8 not what line 2 asks for, 2 outside the price range"
    )
    beside = said("brands: same\nban:\n  - {category: bottom, brand: a, for: {product: p000}}")
    assert (
        beside
        == "there is nothing to show for bottom: none of the bottoms can be shown: 10 of another brand, 10 banned by line 3"
    )
    dear = said("total: {max: 21}")
    assert dear.endswith(
        "none of the shoes can be shown: 18 dearer than an outfit may be (total.max), 2 too dear for total.max=21"
    )
    two = said("never_together: [[{category: bottom}, {category: shoes}]]")
    assert two == "no outfit meets the rules: what goes with it breaks never_together of line 1 or max_uses=2"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ban:\n  - {colur: red}\n", r"rules\.yaml, line 2: no product has an attribute 'colur'\. Did you mean 'colour'"),
        ("pin:\n\n  - {product: p0000}\n", r"rules\.yaml, line 3: there is no product 'p0000'"),
        ("ban: [{brnad: a}]\n", r"'brnad'\. Did you mean 'brand'\? Allowed: brand, product, colour, category\."),
        ("ban: [{sz: a}]\n", r"line 1: no product has an attribute 'sz'\. Allowed: [a-z, ]*category"),
        ("stock: {attribute: pieces}\n", r"rules\.yaml: stock\.attribute: no product has an attribute 'pieces'"),
        ("price: {max: x}\n", r"rules\.yaml, line 1: price\.max='x' is not a number"),
    ],
)
def test_a_rule_that_is_wrong_is_named_by_its_line(store, tmp_path, text, says):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(UsageError, match=says):
        main(Config(store=store, product="p000", rules=str(tmp_path / "rules.yaml")))


def test_a_pin_that_cannot_be_met_beside_what_is_given_is_told(store, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("pin: [{product: p012}]\nnever_together:\n  - [{product: p012}, {product: p000}]\n")
    done = main(Config(store=store, product="p000", rules=str(rules)))
    assert len(done.outfits[0].outfits) == 5
    (told,) = done.rules_not_met
    assert told == f"{rules}, line 1: no outfit here has product p012: beside what is given, 1 never together by line 3"
    assert told in BeautifulSoup(Path(done.report).read_text(encoding="utf-8"), "html.parser").text
    assert main(Config(store=store, product="p005", rules=str(rules), shown=0)).rules_not_met == ()


def test_a_photo_may_be_on_the_web(store, monkeypatch):
    monkeypatch.setattr(
        flow_photo, "Detector", lambda _: lambda photos: [Reject(RejectCode.NOT_AN_IMAGE, str(photos[0].shape))]
    )
    here = ListedFetchConfig(allow_private_hosts=("127.0.0.1",), requests_per_s=None)
    with serve({"/a.jpg": Page(picture(0), headers={"Content-Type": "image/jpeg"}), "/b.jpg": Page(b"<html>")}) as web:
        for name, says in (("a.jpg", r"\(40, 32, 3\)"), ("b.jpg", "not_an_image"), ("c.jpg", "404")):
            with pytest.raises(UsageError, match=f"--photo={web.url}/{name}: .*{says}"):
                main(Config(store=store, photo=f"{web.url}/{name}", fetch=here))
        with pytest.raises(UsageError, match=rf"--photo={web.url}/a\.jpg: blocked_url"):
            main(Config(store=store, photo=f"{web.url}/a.jpg"))


def test_a_stock_rule_about_something_else_is_told(store, tmp_path):
    (tmp_path / "rules.yaml").write_text("stock: {attribute: colour, min: 1}\n")
    done = main(Config(store=store, product="p000", rules=str(tmp_path / "rules.yaml"), dry_run=True))
    (told,) = done.rules_not_met
    assert told.startswith(f"{tmp_path}/rules.yaml: stock: no value of 'colour' is a number of pieces or says sold out (for ")


def test_a_product_that_is_not_in_the_catalog_says_why(tmp_path):
    store = str(tmp_path / "store")
    fill(store, range(10), pictures=False)
    rows = [product(20, active=False), product(21, category="Socks <b>")]
    append(store, schema.PRODUCTS, rows)
    for name, says in (
        ("p020", "product 'p020' is no longer sold$"),
        ("p021", "'p021' is of none of the seven classes: its category is 'Socks <b>'; see --classes"),
    ):
        with pytest.raises(UsageError, match=says):
            main(Config(store=store, product=name))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"product": "p999"}, "there is no product 'p999'"),
        ({"product": "p000", "items": "p001"}, "--product and --items: give one of them"),
        ({"product": ""}, "--product: is empty; without it every product"),
        ({"photo": " "}, "--photo: is empty"),
        ({"items": []}, "--items: is empty"),
        ({"items": " ,"}, "--items: is empty"),
        ({"product": "", "items": "p001"}, "--product: is empty"),
        ({"items": "p000,p005"}, "an outfit has one top, and 2 are given"),
        ({"product": "p000", "scorer": "/nowhere"}, "--scorer=/nowhere: no such folder"),
        ({"product": "p000", "published": True}, "--published: needs --scorer=FOLDER"),
        ({"published": True}, "--published: completes one product"),
        ({"photo": "/nowhere.jpg"}, "--photo=/nowhere.jpg: cannot be read"),
        ({"product": "p000", "keep": "top"}, "--keep: chooses garments of a --photo"),
        ({"product": "p000", "rules": "/nowhere.yaml"}, "--rules=/nowhere.yaml: cannot be read"),
        ({"product": "p000", "worn": WornConfig(source="garments")}, "--worn.source=garments: the store has no outfit there"),
    ],
)
def test_a_mistake_is_a_sentence(store, options, says):
    with pytest.raises(UsageError, match=says):
        main(Config(store=store, **options))


def test_an_empty_store_says_what_to_run(tmp_path):
    with pytest.raises(UsageError, match="run 'w2w ingest' first"):
        main(Config(store=str(tmp_path / "nothing"), product="p"))
    assert job.Config.SHOWN
