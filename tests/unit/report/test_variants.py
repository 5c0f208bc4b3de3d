"""What stands on one card: nearly the same picture, and colours of one design; nothing that only has a like name."""

from w2w.report.variants import Design, colour_attribute, designs, on_cards, said_of_card


def sold(product: str, title: str | None, colour: str | None, brand: str = "Fjord", category: str = "top", active: bool = True):
    attributes = None if colour is None else [("size", "M"), ("colour", colour)]
    row = {"product_id": product, "title": title, "brand": brand, "category": category}
    return row | {"attributes": attributes, "active": active}


def test_colours_of_a_design_have_one_title_but_for_the_colour():
    rows = [
        sold("a", "Fjord Linen Shirt Navy-Blue", "Navy Blue"),
        sold("b", "FJORD  linen shirt red", "Red"),
        sold("c", "Fjord Linen Shirt", "green"),  # its title does not say it
        sold("other class", "Fjord Linen Shirt Red", "Red", category="bottom"),
        sold("other brand", "Fjord Linen Shirt Grey", "Grey", brand="Plain"),
        sold("withdrawn", "Fjord Linen Shirt Red", "Red", active=False),
        sold("no colour", "Fjord Linen Shirt", None),
        sold("nameless", None, "Pink"),
        sold("another", "Fjord Linen Shirt With Red Dots", "Black"),
    ]
    found = designs(rows)
    assert set(found) == {"a", "b", "c"}
    assert len({d.key for d in found.values()}) == 1


def test_a_title_that_comes_twice_in_a_colour_names_several_designs():
    rows = [sold(n, "Doodle Printed Girls Top", c) for n, c in (("a", "Red"), ("b", "Blue"), ("c", "red"))]
    assert designs(rows) == {}
    assert set(designs(rows[:2])) == {"a", "b"}


def test_a_title_of_two_words_names_a_kind_of_garment():
    assert designs([sold("a", "Red striped shirt", "Red"), sold("b", "Blue striped shirt", "Blue")]) == {}
    assert designs([]) == {}


def test_the_colour_is_the_attribute_that_most_products_have():
    products = [[("Farbe", "rot")], [("color", "red")], [("color", "blue"), ("colour", "")], None]
    assert colour_attribute(products) == "color"
    assert colour_attribute([None, []]) is None


def test_cards_keep_the_order_and_every_hit():
    hits = [{"product_id": p, "image_id": i} for p, i in ("a1", "b2", "c1", "d3", "e4", "f5")]
    known = {"b": Design("x", "Red"), "e": Design("x", "Blue"), "f": Design("y", "Red")}
    cards = on_cards(hits, {"3": "1"}, known)
    assert [[hit["product_id"] for hit in card] for card in cards] == [["a", "c", "d"], ["b", "e"], ["f"]]
    assert [[hit["product_id"] for hit in card] for card in on_cards(hits, {}, {})] == [["a", "c"], ["b"], ["d"], ["e"], ["f"]]
    assert said_of_card(["b", "e"], known) == "2 colours"
    assert said_of_card(["a", "c", "d"], known) == "2 more with this picture"
    assert said_of_card(["a"], known) == said_of_card(["b"], known) == ""
