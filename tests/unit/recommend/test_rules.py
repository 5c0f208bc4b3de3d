"""Outfits: what the search finds, and that a merchandiser's rules hold in every one of them."""

import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.recommend.shelves import Told, random_space, shelf
from w2w.errors import UsageError
from w2w.garments.taxonomy import CATEGORIES
from w2w.recommend.answers import answer_of, pins_not_met
from w2w.recommend.house import House, Selector, Wish, read_house
from w2w.recommend.rules import OutfitConfig, Stylist
from w2w.recommend.shelf import apply_house

CLASSES = ("top", "bottom", "shoes", "dress", "bag", "hat", "outer")
BRANDS, COLOURS = ("a", "b", None), ("red", "blue")


def select(**wanted) -> Selector:
    return Selector(tuple(sorted((k, tuple(v) if isinstance(v, list) else (v,)) for k, v in wanted.items())))


def stylist(products, house=House(), seed=0, groups=None, **options) -> Stylist:
    one = shelf(products, groups)
    return Stylist(one, apply_house(house, one), random_space(len(one), seed), OutfitConfig(**options))


PLACES = (*CLASSES, *CLASSES[:4], *CLASSES[:5], *CLASSES[:3])
PRODUCTS = st.tuples(
    *(
        st.fixed_dictionaries(
            {
                "category": st.just(place),
                "brand": st.sampled_from(BRANDS),
                "price": st.sampled_from((5.0, 20.0, 45.0, None)),
                "attributes": st.fixed_dictionaries(
                    {"colour": st.sampled_from(COLOURS), "stock": st.sampled_from(("0", "3", "9"))}
                ),
            }
        )
        for place in PLACES
    )
)
SELECTORS = st.sampled_from(
    [
        select(category="shoes"),
        select(category="bag"),
        select(category=["top", "dress"], colour="red"),
        select(product="p01"),
        select(product=["p02", "p03"]),
        select(brand="a"),
        select(colour="blue"),
    ]
)
WISHES = st.builds(Wish, SELECTORS, st.none() | SELECTORS)
PINS = WISHES.filter(lambda w: w.what.values("product") or w.what.values("category"))
RULES = {  # each example has a few of them: with all at once there is hardly an answer
    "price_max": st.just(40.0),
    "total_max": st.sampled_from((45.0, 70.0)),
    "only": st.sampled_from([(select(category="shoes", colour="red"),), (select(brand=["a", "b"]),)]),
    "brands": st.sampled_from(("same", "different")),
    "pins": st.lists(PINS, min_size=1, max_size=2).map(tuple),
    "bans": st.lists(WISHES, min_size=1, max_size=3).map(tuple),
    "never_together": st.tuples(st.tuples(SELECTORS, SELECTORS)),
    "max_uses": st.integers(1, 3),
}


@st.composite
def houses(draw) -> House:
    chosen = draw(st.lists(st.sampled_from(sorted(RULES)), unique=True, min_size=1, max_size=3))
    return House(**{name: draw(RULES[name]) for name in chosen})


def means(selector: Selector, product: dict, name: str) -> bool:
    """Written apart from the shelf's: whether a product is what a selector says."""
    told = {"product": name, "category": product["category"], "brand": product["brand"], **product["attributes"]}
    return all(told.get(key) in values for key, values in selector.wanted)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PRODUCTS, houses(), st.data())
def test_filters_pins_and_bans_hold_in_every_answer(products, house, data):
    groups = data.draw(st.lists(st.integers(0, 40), min_size=len(products), max_size=len(products)))
    asked = data.draw(st.integers(0, len(products) - 1))
    extras = data.draw(st.lists(st.sampled_from(("bag", "hat")), unique=True))
    one = stylist(products, house, data.draw(st.integers(0, 9)), groups, extras=extras, candidates=6, beam=6)
    names, price = one.shelf.ids(range(len(products))), [p["price"] for p in products]

    def is_(selector, row):
        return means(selector, products[row], names[row])

    def buyable(row):
        p = products[row]
        good = p["attributes"]["stock"] != "0" and not any(is_(b.what, row) for b in house.bans if b.beside is None)
        if house.price_max or house.total_max:
            good &= p["price"] is not None and p["price"] <= min(house.price_max or 1e9, house.total_max or 1e9)
        for only in house.only:
            place = only.values("category")
            good &= bool(place and p["category"] not in place) or is_(only, row)
        return good and not any(b.beside and is_(b.beside, asked) and is_(b.what, row) for b in house.bans)

    question = one.question([asked])
    for place, rows in question.candidates.items():
        scores, floor = one.pair(np.array([asked]), one._stock[place])[0], question.floors[place]
        chosen = np.isin(one._stock[place], rows)
        assert place in question.pinned or (scores[chosen] >= floor).all()
        if house.total_max is None and place not in question.pinned:  # who is not among them does not reach the floor
            barred = one._barred(np.array([asked]), one._stock[place])[0]
            could = ~barred & np.array([buyable(row) for row in one._stock[place]], bool)
            assert (scores[could & ~chosen] <= floor).all()
    answers = one.answers(question)
    uses = Counter()
    for answer in answers:
        new = [row for row in answer.rows if row != asked]
        classes = [products[row]["category"] for row in answer.rows]
        assert asked in answer.rows
        assert {"top", "bottom", "shoes"} <= set(classes) or {"dress", "shoes"} <= set(classes)
        assert not ("dress" in classes and {"top", "bottom"} & set(classes))
        assert len(set(classes)) == len(classes)
        assert all(map(buyable, new)), "filters, stock, prices and bans"
        assert not any(is_(b.what, asked) for b in house.bans if b.beside is None)
        assert len({groups[row] for row in answer.rows}) == len(answer.rows), "near-duplicates"
        for pin in house.pins:
            if pin.beside is not None and not is_(pin.beside, asked):
                continue
            for row in new:  # a pin holds where one of what it means could have been there
                could = [
                    other
                    for other in range(len(products))
                    if is_(pin.what, other) and products[other]["category"] == products[row]["category"] and buyable(other)
                ]
                kin = [p for p in house.pins if p.beside is None or is_(p.beside, asked)]
                barred = [o for o in could if not one._barred(np.array([asked]), np.array([o]))[0, 0]]
                assert not barred or any(is_(p.what, row) for p in kin), "pins"
        for a, b in itertools.permutations(answer.rows, 2):
            assert not any(is_(left, a) and is_(right, b) for left, right in house.never_together)
            mine, theirs = products[a]["brand"], products[b]["brand"]
            assert house.brands != "same" or (mine == theirs and mine is not None)
            assert house.brands != "different" or mine != theirs or mine is None
        if house.total_max:
            assert sum(price[row] or 0 for row in answer.rows) <= house.total_max
        pinned_classes = {products[r]["category"] for p in house.pins for r in new if is_(p.what, r)}
        uses.update(groups[row] for row in new if products[row]["category"] not in pinned_classes)
    assert all(n <= house.max_uses for n in uses.values())
    assert len({frozenset(groups[r] for r in a.rows) for a in answers}) == len(answers), "no outfit twice"


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_what_every_combination_finds(seed):
    products = [{"category": c} for c in ("top", "bottom", "shoes", "bag") for _ in range(5)]
    one = stylist(products, seed=seed, extras=["bag"], candidates=5, beam=125, answers=1)
    space = random_space(20, seed).score_MM
    best = max(
        itertools.product(range(5, 10), range(10, 15), range(15, 20)),
        key=lambda rows: np.mean([space[a, b] for a, b in itertools.combinations((0, *rows), 2)]),
    )
    (found,) = one.answers(one.question([0]))
    assert found.rows == (0, *best)
    two = list(itertools.combinations(found.rows, 2))
    assert found.pairs == pytest.approx([np.exp(space[a, b]) for a, b in two])
    assert found.score == pytest.approx(np.exp(np.mean([space[a, b] for a, b in two])))


def test_a_complete_outfit_is_scored():
    one = stylist([{"category": c} for c in ("top", "bottom", "shoes", "dress")])
    (found,) = one.answers(one.question([2, 0, 1]))
    assert found.rows == (0, 1, 2)
    assert len(found.pairs) == 3
    with pytest.raises(UsageError, match="an outfit has one top, and 2 are given"):
        stylist([{"category": "top"}] * 2).question([0, 1])
    with pytest.raises(UsageError, match="they fill the same place"):
        one.question([0, 3])


def test_of_shoes_both_forms_take_turns():
    products = [{"category": c} for c in ("shoes", *["top"] * 4, *["bottom"] * 4, *["dress"] * 4)]
    one = stylist(products, answers=6)
    told = [products[a.rows[0]]["category"] for a in one.answers(one.question([0]))]
    assert told == ["top", "dress"] * 3


def test_diversity_takes_what_is_new_where_it_is_nearly_as_good():
    products = [{"category": c} for c in ("dress", "shoes", "shoes", "bag", "bag")]
    score = np.full((5, 5), -0.1)
    score[2], score[:, 2], score[4], score[:, 4] = -0.2, -0.2, -0.15, -0.15
    one = shelf(products)
    told = {}
    for diversity in (0.0, 0.2):
        config = OutfitConfig(extras=("bag",), diversity=diversity, answers=2)
        of = Stylist(one, apply_house(House(), one), Told(score), config)
        told[diversity] = [a.rows for a in of.answers(of.question([0]))]
    assert told == {0.0: [(0, 1, 3), (0, 1, 4)], 0.2: [(0, 1, 3), (0, 2, 4)]}


def test_an_empty_place_is_a_sentence():
    one = stylist([{"category": "top"}, {"category": "shoes"}])
    question = one.question([0])
    assert question.why == "there is nothing to show for bottom"
    assert one.answers(question) == []
    banned = stylist([{"category": "dress"}, {"category": "shoes"}], House(bans=(Wish(select(product="p00")),)))
    assert banned.question([0]).why == "it is banned"
    plain = shelf([{"category": "top"}])
    knows = Told(np.zeros((1, 1)), ("top", "bottom", "shoes", "dress"))
    with pytest.raises(UsageError, match=r"outfit\.extras=bag: this scorer knows top, bottom"):
        Stylist(plain, apply_house(House(), plain), knows, OutfitConfig(extras=("bag",)))


@pytest.mark.parametrize("brands", ["same", "different"])
def test_a_photos_garment_has_no_brand_to_agree_with(brands):
    sold = shelf([{"category": "shoes", "brand": b} for b in ("a", "b")])
    house = apply_house(House(brands=brands), sold)
    asked = Stylist(sold, house, random_space(len(sold) + 1, 0), OutfitConfig(), ("dress",))
    assert sorted(a.rows for a in asked.answers(asked.question([len(sold)]))) == [(2, 0), (2, 1)]
    assert not asked._barred(np.array([0, 1]), np.array([2])).any()  # also where the sold ones are given


def test_what_is_barred_only_beside_something_is_there_beside_other_things():
    products = [{"category": c, "brand": b} for c, b in (("dress", "a"), ("dress", "b"), ("shoes", "b"), ("shoes", "a"))]

    def shoes_with(house: House, dress: int) -> list[int]:
        one = stylist(products, house)
        return sorted(a.rows[1] for a in one.answers(one.question([dress])))

    beside = House(bans=(Wish(select(product="p02"), select(brand="a")),))
    assert (shoes_with(beside, 0), shoes_with(beside, 1)) == ([3], [2, 3])
    for two in ((select(brand="a"), select(product="p02")), (select(product="p02"), select(brand="a"))):
        never = House(never_together=(two,))
        assert (shoes_with(never, 0), shoes_with(never, 1)) == ([3], [2, 3])
    pinned = House(pins=(Wish(select(product="p02"), select(category="dress", brand="a")),))
    assert (shoes_with(pinned, 0), shoes_with(pinned, 1)) == ([2], [2, 3])
    assert (shoes_with(House(brands="same"), 0), shoes_with(House(brands="different"), 0)) == ([3], [2])


def test_an_outfit_is_never_dearer_than_it_may_be():
    products = [{"category": c, "price": p} for c, p in (("top", 10.0), ("bottom", 30.0), ("bottom", 20.0), ("shoes", 30.0))]
    one = stylist(products, House(total_max=60))
    assert [a.rows for a in one.answers(one.question([0]))] == [(0, 2, 3)]
    one = stylist(products, House(total_max=59))
    assert one.answers(one.question([0])) == []


def test_a_budget_is_met_where_it_can_be():
    """The best go over it; that the cheap are looked at too is what finds the one outfit that fits."""
    products = [{"category": "top", "price": 10.0}]
    products += [{"category": c, "price": 60.0 if i else 20.0} for c in ("bottom", "shoes") for i in range(40)]
    score = np.full((81, 81), -5.0)
    score[:, [i for i in range(81) if products[i]["price"] == 60]] = -0.1
    one = shelf(products)
    of = Stylist(one, apply_house(House(total_max=55), one), Told(np.maximum(score, score.T)), OutfitConfig(candidates=4))
    assert [a.rows for a in of.answers(of.question([0]))] == [(0, 1, 41)]


def test_of_near_duplicates_one_is_shown_and_a_pinned_one_first():
    products = [{"category": "dress"}, *({"category": "shoes"} for _ in range(3))]
    one = stylist(products, groups=[0, 1, 1, 2], seed=3)
    shown = [a.rows[1] for a in one.answers(one.question([0]))]
    assert sorted(shown) == [1, 3]
    assert one.applied.left_out == {"near_duplicates": 1}
    pinned = stylist(products, House(pins=(Wish(select(product="p02")),)), groups=[0, 1, 1, 2], answers=9)
    assert {a.rows[1] for a in pinned.answers(pinned.question([0]))} == {2}


def test_a_rule_that_meets_no_product_is_told():
    text = (
        "ban:\n- {category: shoos}\n- {brand: b0, for: {category: hatt}}\nnever_together:\n- [{brand: b0}, {brand: nobody}]\n"
    )
    one = stylist([{"category": c, "brand": "b0"} for c in ("dress", "shoes")], read_house(text.encode(), "rules.yaml"))
    assert one.applied.told == (
        "rules.yaml, line 2: no product is category shoos",
        "rules.yaml, line 3: no product is category hatt",
        "rules.yaml, line 5: no product is brand nobody",
    )
    with pytest.raises(UsageError, match="line 1: << is not read here"):
        read_house(b"ban: [{<<: {category: hat}}]", "rules.yaml")


def test_a_pin_that_cannot_be_had_is_told_and_left_out():
    products = [
        {"category": "dress"},
        {"category": "shoes"},
        {"category": "shoes", "attributes": {"availability": "out of stock"}},
    ]
    house = read_house(b"pin:\n  - {product: p02}\n", "rules.yaml")
    one = stylist(products, house)
    assert one.applied.told == ("rules.yaml, line 2: nothing that may be shown is product p02: the pin is ignored",)
    assert [a.rows for a in one.answers(one.question([0]))] == [(0, 1)]
    assert set(CATEGORIES) >= set(CLASSES)


@pytest.mark.parametrize(
    ("rules", "given", "says"),
    [
        (
            "pin: [{product: p04}]\nnever_together: [[{product: p04}, {product: p00}]]",
            0,
            "beside what is given, 1 never together by line 2",
        ),
        ("pin: [{product: p04}]\nnever_together: [[{product: p04}, {product: p00}]]", 2, ""),
        ("pin: [{product: p04}]\nban: [{product: p04, for: {category: top}}]", 0, "beside what is given, 1 banned by line 2"),
        ("pin: [{product: p04}]\ntotal: {max: 39}", 0, "beside what is given, 1 too dear for total.max=39"),
        ("pin: [{product: p04, for: {category: top}}]\nbrands: different", 1, ""),
        ("pin: [{product: p04}]", 4, ""),
        ("pin: [{product: p04}]", 3, "the shoes of the outfit is given"),
        ("pin: [{category: dress}]", 1, "an outfit with the given bottom has no dress"),
        ("pin: [{category: dress}]", 3, ""),
        ("pin: [{category: bag}]\nnever_together: [[{category: bag}, {category: top}]]", 2, ""),
        ("pin: [{category: bag, for: {category: top}}]", 0, ""),
        ("pin: [{category: shoes}, {product: p04}]", 0, ""),
        ("pin: [{category: bag}]", 7, ""),  # a photo's
        ("pin: [{product: p06}]", 7, "the bag of the outfit is given"),
        ("pin: [{product: p05}]\nnever_together: [[{product: p05}, {category: top}]]", 0, "1 never together by line 2"),
    ],
)
def test_a_pin_that_an_answer_does_not_meet_is_told_with_its_cause(rules, given, says):
    places = ("top", "bottom", "dress", "shoes", "shoes", "hat", "bag")
    products = [{"category": c, "price": 30.0 if n == 4 else 10.0} for n, c in enumerate(places)]
    sold = shelf(products)
    applied = apply_house(read_house(rules.encode(), "rules.yaml"), sold)
    one = Stylist(sold, applied, random_space(len(sold) + 1, 0), OutfitConfig(), ("bag",))
    asked = (given,) if given < len(sold) else (0, given)
    answer = answer_of(one, one.question(asked))
    assert answer.outfits
    told = pins_not_met(one, answer, asked)
    assert len(told) == bool(says)
    assert all(re.match(rf"rules\.yaml, line 1: no outfit here has [a-z0-9 ]*: .*{says}$", line) for line in told)


def test_pins_that_come_second_and_pins_without_an_answer():
    products = [{"category": c} for c in ("dress", "shoes", "shoes", "bag")]
    house = read_house(b"pin:\n  - {product: p01}\n  - {product: p02}\n  - {category: bag}\n", "rules.yaml")
    one = stylist(products, house, answers=1)
    answer = answer_of(one, one.question([0]))
    (told,) = pins_not_met(one, answer, [0])
    assert re.fullmatch(r"rules\.yaml, line [23]: no outfit here has product p0[12]: another pin or rule comes before it", told)
    sold = shelf(products)
    knows = Told(random_space(4, 0).score_MM, ("top", "bottom", "shoes", "dress"))
    narrow = Stylist(sold, apply_house(house, sold), knows, OutfitConfig())
    answer = answer_of(narrow, narrow.question([0]))
    (told,) = pins_not_met(narrow, answer, [0])
    assert told == "rules.yaml, line 4: no outfit here has category bag: the scorer knows nothing of what a bag goes with"
    assert pins_not_met(narrow, replace(answer, outfits=()), [0]) == ()
