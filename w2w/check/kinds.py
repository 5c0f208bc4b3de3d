"""The kinds of findings: how grave each is, what it says to a person, and how one is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from w2w import schema

HIGH, MEDIUM, LOW = "high", "medium", "low"

FOUND = pa.schema(
    [
        f
        for f in schema.CHECKS.schema
        if f.name not in (schema.CHECK_ID, schema.URL, schema.SINCE, schema.CHECKED_AT, schema.RUN_ID)
    ]
)


@dataclass(frozen=True)
class Kind:
    """A kind of finding. ``needs``: what it looks at beside products: pictures, vectors, tags, looks, links."""

    severity: str
    title: str
    says: str
    needs: str = ""


KINDS = {
    "no_picture": Kind(HIGH, "No picture", "Nothing to see, nothing to find: no search by picture can show them."),
    "placeholder": Kind(
        HIGH,
        "Placeholder pictures",
        "One flat colour, or one front picture on ten products and more, on five and more of three categories, or a plain "
        "one on three of two.",
        "pictures",
    ),
    "broken_link": Kind(HIGH, "Broken links", "Customers who follow it find no page, or the front page of the shop.", "links"),
    "zero_price": Kind(HIGH, "Nothing to pay", "A price of zero or less."),
    "wrong_category": Kind(
        MEDIUM,
        "Picture contradicts category",
        "Among all other products, those that look like it are sold in another category. Some are rightly in theirs: a wide "
        "top that looks like a dress.",
        "vectors",
    ),
    "wrong_value": Kind(
        MEDIUM,
        "Picture contradicts a value",
        "It hardly looks like the colour or type that the feed gives. Of a product with several parts the feed may mean "
        "another one.",
        "tags",
    ),
    "sale_price": Kind(MEDIUM, "Sale price is not lower", "Customers would see a reduction that is none."),
    "price_outlier": Kind(
        MEDIUM, "Unusual prices", "Far from the usual price of the category: a lost point, another currency?"
    ),
    "shared_picture": Kind(MEDIUM, "One picture on several products", "Variants of one group are not counted.", "pictures"),
    "blurred": Kind(MEDIUM, "Blurred pictures", "Out of focus, or scaled up from a small one.", "pictures"),
    "tiny": Kind(MEDIUM, "Tiny pictures", "Too few pixels for a product page.", "pictures"),
    "unreadable_value": Kind(MEDIUM, "Values that could not be read", "As the feed of the last night had them."),
    "missing_value": Kind(LOW, "Missing values", "Most other products of the catalog have them."),
    "rare_category": Kind(LOW, "Rare categories", "Perhaps a misspelling of another one."),
    "only_worn": Kind(LOW, "No picture of the garment alone", "As a detector sees it, which errs on some sets.", "looks"),
}


@dataclass(frozen=True)
class Seen:
    """Findings; why some kinds were not looked for; and kinds of which some may have been missed, with the reason."""

    found: pa.Table
    left_out: dict[str, str] = field(default_factory=dict)
    partly: dict[str, str] = field(default_factory=dict)


def found(
    kind: str, products: Sequence[str], details: Sequence[str], images: Sequence, about: Sequence | None = None
) -> pa.Table:
    """FOUND of one kind."""
    num = len(products)
    columns = [[kind] * num, [KINDS[kind].severity] * num, products, about or [None] * num, details]
    columns.append([[one for one in some if one] for some in images])
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, FOUND)], schema=FOUND)


def of_rows(kind: str, goods: pa.Table, details: Sequence[str], about: Sequence | None = None) -> pa.Table:
    """FOUND for rows of ``goods``, each shown by its front picture."""
    images = [[image] for image in goods.column(schema.IMAGE_ID).to_pylist()]
    return found(kind, goods.column(schema.PRODUCT_ID).to_pylist(), details, images, about)
