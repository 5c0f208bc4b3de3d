"""Labels to classes by name: the tables of the data sets, detectors recognised by their labels, sentences for strange ones."""

import pytest

from w2w.errors import UsageError
from w2w.garments.taxonomy import CATEGORIES, VOCABULARIES, TaxonomyConfig, class_called, mapping_of, street_target

COUNTS = {"modanet": 14, "fashionpedia": 46, "deepfashion2": 13, "k-fashion": 4, "street2shop": 11, "polyvore": 11}


def test_order_is_that_of_the_published_detector():
    assert CATEGORIES == ("bag", "bottom", "dress", "hat", "outer", "shoes", "top")


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_every_label_of_a_data_set_is_known(name, count):
    assert len(VOCABULARIES[name]) == count
    assert set(mapping_of(VOCABULARIES[name]).values()) <= {*CATEGORIES, None, "ignore"}


def test_a_detector_is_recognised_by_its_labels():
    assert mapping_of(CATEGORIES) == {c: c for c in CATEGORIES}
    assert mapping_of(["Vest", "sling", "trousers", "shorts"])["Vest"] == "top"  # DeepFashion2: a vest is a top
    assert mapping_of(["vest", "coat"])["vest"] == "outer"  # Fashionpedia: an outer
    coco = mapping_of(["person", "handbag", "traffic light", "tie"])
    assert coco == {"person": "person", "handbag": "bag", "traffic light": None, "tie": None}


def test_fashionpedia_mended_and_as_the_seed_had_it():
    labels = list(VOCABULARIES["fashionpedia"])
    mended, seed = mapping_of(labels), mapping_of(labels, TaxonomyConfig(seed=True))
    differ = {label: (mended[label], seed[label]) for label in labels if mended[label] != seed[label]}
    assert differ == {
        "sweater": ("top", None),
        "jumpsuit": ("ignore", None),
        "tights, stockings": ("ignore", "bottom"),
    }
    chosen = mapping_of(labels, TaxonomyConfig(jumpsuit="dress", tights="drop"))
    assert (chosen["jumpsuit"], chosen["tights, stockings"]) == ("dress", None)


def test_strange_labels_are_named_and_can_be_said():
    with pytest.raises(
        UsageError, match=r"detector x has labels that no one vocabulary has: 'kilt'.* taxonomy\.classes: {'kilt': top"
    ):
        mapping_of(["top", "kilt"], where="detector x")
    assert mapping_of(["top", "kilt"], TaxonomyConfig(classes={"Kilt": "bottom"})) == {"top": "top", "kilt": "bottom"}
    assert mapping_of(["top", "kilt"], TaxonomyConfig(classes={"kilt": "drop"}))["kilt"] is None
    with pytest.raises(UsageError, match=r"classes\.kilt=skirt: must be one of bag"):
        TaxonomyConfig(classes={"kilt": "skirt"})
    with pytest.raises(UsageError, match=r"Did you mean 'modanet'"):
        TaxonomyConfig(vocabulary="modanett")


def test_street_labels_that_may_be_clothes_are_ignored():
    assert [street_target("jeans", "bottom"), street_target("suit", ""), street_target("hair", "")] == [
        "bottom",
        "ignore",
        None,
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Men's Casual Shoes", "shoes"), ("T-Shirts", "top"), ("t shirt", "top"), ("Shirt Dresses", "dress"),
        ("dress shirt", "top"),
        ("Apparel & Accessories > Clothing > Shirts & Tops", "top"), ("Flip Flops", "shoes"), ("Waistcoat", "outer"),
        ("JEANS", "bottom"), ("Innerwear Vests", "top"), ("Caps", "hat"), ("Trolley bag", "bag"), ("Lehenga Choli", None),
        ("", None), ("stopper", None), ("上衣", None),
    ],
)  # fmt: skip
def test_a_shops_name_for_a_category_says_its_class(text, found):
    assert class_called(text) == found
