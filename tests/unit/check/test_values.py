"""Values of the feed that pictures contradict, by the heads of a tagger."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.check.stores import NUM, Wardrobe, rows_of
from tests.unit.recommend.stores import append
from w2w import ids, schema
from w2w.check.job import Config, main
from w2w.check.rules_values import Compared, Contradicted, findings, known, own_meaning
from w2w.garments.classifier import Classifier
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.table import delta
from w2w.training.tags.heads import Head, Tagger, save

COLOURS = ("beige", "black", "blue", "brown", "green", "grey", "orange", "pink", "purple", "red", "teal", "white", "yellow")
DOUBT, SURE = 5.0, 12.0  # of a vector that says little, and much: among 13 values the others get .005 and 6e-6


def head(labels: tuple[str, ...]) -> Head:
    """Sees the greatest place of a vector."""
    eye = np.eye(len(labels), dtype=np.float32)
    layer = (eye, np.zeros(len(labels), np.float32))
    flat = np.zeros(len(labels), np.float32), np.ones(len(labels), np.float32)
    return Head(Classifier(labels, "", *flat, (layer,)), np.full(len(labels), 0.9))


def pictures(seen: list[str], by: float = SURE) -> np.ndarray:
    return by * np.eye(len(COLOURS), dtype=np.float32)[[COLOURS.index(colour) for colour in seen]]


def compared(given: list[str | None], seen: list[str], by: float = SURE) -> Compared:
    found = Compared(head(COLOURS), pa.chunked_array([pa.array(given, pa.string())]))
    rows = np.flatnonzero(found.asked_N)
    for some in np.array_split(rows, 3):
        found.add(some, pictures(seen, by)[some])
    return found


def test_values_are_known_by_their_words():
    assert known(["Navy Blue", "off-white / GRAY", "reddish", "", "Black,Red"], COLOURS).nonzero()[1].tolist() == [
        2,
        5,
        11,
        1,
        9,
    ]
    assert known(["Hell Blau"], ["hell blau", "blau", "rot"]).tolist() == [[True, True, False]]
    assert known([], COLOURS).shape == (0, len(COLOURS))


def test_what_pictures_make_improbable_is_told_and_nothing_else():
    given = ["Blue", "Navy Blue", "Turquoise", None, "red/white", "Red", "Gray"]
    seen = ["red", "blue", "red", "red", "white", "green", "grey"]
    found = compared(given, seen).contradicted()
    assert (found.rows.tolist(), found.seen, found.own_meaning) == ([0, 5], ["red", "green"], [])
    assert (found.scores > 0.99).all()
    assert not len(compared(given, seen, DOUBT).contradicted().rows)
    goods = pa.table({"product_id": [f"p{n}" for n in range(7)], "image_id": [f"i{n}" for n in range(7)]})
    told = findings(goods, "colour", pa.chunked_array([pa.array(given)]), replace(found, scores=np.array([0.91, 0.99])))
    assert told.column("product_id").to_pylist() == ["p5", "p0"]
    assert told.column("detail").to_pylist()[0] == "Its colour is given as 'Red', and it looks 'green' (0.99)."


def test_a_long_value_is_cut_visibly():
    given = pa.chunked_array([pa.array(["Blue " + "z" * 300])])
    goods = pa.table({"product_id": ["p"], "image_id": ["i"]})
    told = findings(goods, "colour", given, Contradicted(np.array([0]), ["red"], np.array([0.99]), []))
    assert told.column("detail")[0].as_py() == f"Its colour is given as 'Blue {'z' * 54}\u2026', and it looks 'red' (0.99)."


def test_a_word_that_the_shop_uses_otherwise_is_no_fault_of_its_products():
    given = ["Blue"] * 20 + ["Red"] * 40
    found = compared(given, ["purple"] * 3 + ["blue"] * 17 + ["green"] * 4 + ["red"] * 36).contradicted()
    assert (found.rows.tolist(), found.own_meaning) == ([20, 21, 22, 23], ["Blue"])  # 3 of 20, and 4 of 40
    few = compared(["Blue"] * 4, ["red"] * 2 + ["blue"] * 2).contradicted()
    assert (few.rows.tolist(), few.own_meaning) == ([0, 1], [])
    assert own_meaning({"colour": ["Blue"], "type": []}) == (
        "products of colour 'Blue' are not judged: over a tenth of them look otherwise"
    )
    assert own_meaning({"colour": list("abcdefg")}).startswith(
        "products of colour 'a', colour 'b', colour 'c', colour 'd', colour 'e' and 2 more"
    )
    assert not own_meaning({"colour": []})


@pytest.fixture(scope="module")
def wardrobe() -> Wardrobe:
    return Wardrobe()


def tagged(store: str, wardrobe: Wardrobe) -> None:
    """A tagger of the store that sees each picture's colour, and vectors of its encoder."""
    save(Tagger("w2w-fashion", 0.0, {"colour": head(COLOURS), "category": head(COLOURS)}), f"{store}/tags", {})
    vectors = pictures([garment.colour_name for garment in wardrobe.garments]).tolist()
    of = {"owner_kind": "image", "model_version": model_version(EncoderConfig())}
    owners = [ids.image_id(data) for data in wardrobe.pictures]
    append(store, schema.EMBEDDINGS, [of | {"owner_id": o, "vector": v} for o, v in zip(owners, vectors)], "embed fashion")


def test_the_check_lists_wrong_colours_of_the_catalog(tmp_path, wardrobe):
    def plant(rows: list[dict]) -> None:
        rows[3]["colour"] = "red" if rows[3]["colour"] != "red" else "blue"
        own = rows[4]["colour"]
        rows[4] |= {"colour": None, "attributes": [("Colour", "Green" if own != "green" else "Pink")]}
        rows[5] |= {"colour": None, "attributes": [("colour", "Seaweed")]}
        rows[6] |= {"colour": "teal" if rows[6]["colour"] != "teal" else "pink", "image_id": None}

    store = wardrobe.write(str(tmp_path), plant)
    tagged(store, wardrobe)
    asked = Config(store=store, encoder="m", only=["wrong_value", "tiny"])
    result = main(asked)
    assert (result.findings, result.left_out) == ({"wrong_value": 2}, ())
    rows = delta.read(store, schema.CHECKS, ["product_id", "about", "detail"]).sort_by("product_id").to_pylist()
    assert [(row["product_id"], row["about"]) for row in rows] == [("p003", "colour"), ("p004", "colour")]
    colour = wardrobe.garments[3].colour_name
    assert (
        rows[0]["detail"] == f"Its colour is given as {'red' if colour != 'red' else 'blue'!r}, and it looks {colour!r} (1.00)."
    )
    assert "Picture contradicts a value" in Path(result.report).read_text()
    assert (main(asked).new, main(asked).gone) == (0, 0)
    mended = rows_of(wardrobe.garments, wardrobe.pictures)[3:5]
    append(store, schema.PRODUCTS, [row | {"fetched_at": 10**12} for row in mended], "night")
    assert (main(asked).findings, main(asked).products) == ({}, NUM)


def test_what_is_missing_for_it_is_said(tmp_path, wardrobe, caplog):
    store = wardrobe.write(str(tmp_path))
    main(Config(store=store, only=["wrong_value"], fail_on=["wrong_value"]))
    assert "--fail_on=wrong_value was not looked for: it needs vectors of w2w-fashion" in caplog.text
    asked = Config(store=store, only=["wrong_value"])
    assert main(asked).left_out[0].startswith("wrong_value: it needs vectors of w2w-fashion, which tagger w2w-tags reads")
    Path(store, "tags").mkdir()
    Path(store, "tags", "tags.json").write_text("{")
    assert "tags: cannot be read" in main(asked).left_out[0]
    save(Tagger("w2w-fashion", 0.0, {"neckline": head(COLOURS)}), f"{store}/tags", {})
    assert "the feed says nothing in the words of tagger" in main(asked).left_out[0]
    save(Tagger("w2w-fashion", 0.0, {"category": head(COLOURS)}), f"{store}/tags", {})
    assert "(no attribute but the category)" in main(asked).left_out[0]
    assert main(replace(asked, only=["tiny"])).left_out == ()
