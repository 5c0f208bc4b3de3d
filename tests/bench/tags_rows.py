"""What the public rows are labelled with, as attributes of garments: a shop's words for colours as those that all share."""

import csv

import numpy as np

from tests.bench.fashion_rows import DATA, Rows

# attribute -> the rows that a head learns from and is measured on, and others that it is measured on
ATTRIBUTES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "kind": (("user_photos", "catalog"), ()),
    "type": (("catalog",), ()),
    "colour": (("catalog",), ("views",)),
}

SHOES = ("Casual Shoes", "Flats", "Flip Flops", "Formal Shoes", "Heels", "Sandals", "Sports Shoes")
KINDS = {
    "Capris": "pants", "Dresses": "dress", "Jeans": "pants", "Shirts": "shirt", "Shorts": "shorts", "Skirts": "skirt",
    "Tshirts": "t-shirt",
} | dict.fromkeys(SHOES, "shoes")  # fmt: skip

COLOURS = {
    "navy blue": "navy", "olive": "green", "sea green": "green", "lime green": "green", "maroon": "red", "tan": "brown",
    "mushroom brown": "brown", "magenta": "pink", "lavender": "purple", "off white": "white", "cream": "beige",
    "khaki": "beige", "charcoal": "grey", "grey melange": "grey", "turquoise blue": "blue", "gray": "grey", "bk": "black",
    "br": "brown",
}  # fmt: skip
NAMED = ("black", "white", "grey", "blue", "navy", "brown", "beige", "red", "pink", "purple", "green", "yellow", "orange")
NAMED += ("gold", "silver")
GENDERS = {"Men": "men", "Boys": "men", "Women": "women", "Girls": "women", "men": "men", "women": "women"}


def labels_of(rows: Rows, task: str) -> np.ndarray:
    """The attribute of every row, "" where it is not known."""
    if task == "kind" and rows.name == "catalog":
        return np.array([KINDS.get(value, "") for value in rows.labels["type"]])
    if task == "kind":
        return rows.labels["class"]
    if task in ("type", "drawn"):
        return rows.labels["type"]
    file = DATA / rows.name / {"catalog": "products.csv", "views": "views.csv"}[rows.name]
    with open(file, encoding="utf-8") as f:
        said = [row[task] for row in csv.DictReader(f)]
    if task == "gender":
        return np.array([GENDERS[value] for value in said])
    words = [COLOURS.get(value.lower(), value.lower()) for value in said]
    return np.array([word if word in NAMED else "" for word in words])
