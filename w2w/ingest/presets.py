"""Feeds as shop systems export them: which of their columns is which of ours, and which of their rows are no products."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.ingest.raw import IMAGE, REQUIRED, RawBatch, attributes_of, trimmed

# our column -> common names in feeds, letters and digits only, likeliest first
_CALLED = {
    schema.PRODUCT_ID: "productid id sku articleid itemid productcode articlenumber itemnumber code gtin ean handle",
    IMAGE: "image imageurl imagelink imageuri img imgurl picture pictureurl photo photourl imagepath imagefile filename "
    "imagesrc imagessrc imagesurl images",
    schema.TITLE: "title name productname displayname productdisplayname producttitle",
    schema.BRAND: "brand brandname vendor manufacturer",
    schema.PRICE: "price saleprice currentprice productprice amount priceamount pricevalue",
    schema.CURRENCY: "currency pricecurrency currencycode",
    schema.CATEGORY: "category categoryname producttype articletype googleproductcategory subcategory mastercategory type",
    schema.URL: "url link producturl productlink pageurl",
}
_LIST = r",\s+"  # between the parts of a value that is a list
ANY = "*"  # any value


@dataclass(frozen=True)
class Preset:
    """``columns``: ours -> theirs, of several the first that has a value in the row. ``aside``: column -> what it says, in
    small letters, in rows that are variants, further pictures or not on sale; "" if it says nothing. Names of columns are
    compared by letters and digits alone."""

    signs: str
    columns: Mapping[str, str]
    aside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lists: tuple[str, ...] = ()  # our columns of which the first part of their value counts

    def is_told_by(self, names: Iterable[str]) -> bool:
        return set(self.signs.split()) <= {plain(name) for name in names}

    def first_of(self, names: Iterable[str]) -> dict[str, str]:
        """Our column -> the first of theirs that is there."""
        there = {plain(name): name for name in reversed(list(names))}
        found = {ours: next((there[t] for t in theirs.split() if t in there), None) for ours, theirs in self.columns.items()}
        return {ours: theirs for ours, theirs in found.items() if theirs}

    def applied(self, raw: RawBatch, columns: Mapping[str, str], attributes: Iterable[str] | None) -> RawBatch:
        """The rows that are products, with these attributes (None: all that are not mapped). ``raw`` was read with ``columns``
        (``first_of``) and every other column as attribute."""
        count = len(raw.source)
        known = {plain(theirs): trimmed(raw.columns[ours]) for ours, theirs in columns.items() if ours in raw.columns}
        names = {plain(name): name for name in pc.unique(raw.attributes.keys).to_pylist()}

        def said(theirs: str) -> pa.Array:
            if theirs in known:
                return known[theirs]
            return pc.map_lookup(raw.attributes, names[theirs], "first") if theirs in names else pa.nulls(count, pa.string())

        here = dict(raw.columns)
        for ours in here.keys() & self.columns.keys():
            own = plain(columns[ours]) if ours in columns else ""
            if own in self.columns[ours].split():
                values = pc.coalesce(*(said(theirs) for theirs in self.columns[ours].split()))
                here[ours] = pc.list_element(pc.split_pattern_regex(values, _LIST), 0) if ours in self.lists else values
        keep = np.ones(count, bool)
        for theirs, values in self.aside.items():
            if theirs in known or theirs in names:
                text = pc.fill_null(pc.utf8_lower(said(theirs)), "")
                meant = pc.not_equal(text, "") if ANY in values else pc.is_in(text, value_set=pa.array(values, pa.string()))
                keep &= ~meant.to_numpy(zero_copy_only=False)
        kept = pa.array(keep)
        wanted = raw.attributes
        if attributes is not None:
            wanted = attributes_of({name: said(plain(name)) for name in sorted(attributes)}, count)
        return replace(raw, columns=here, attributes=wanted, num_left_out=int(count - keep.sum())).filter(kept)


# Shopify: a row a variant or picture, only the first of a product has a title. WooCommerce: variations are rows of their own.
# Magento 2: simple products of a configurable one are not visible, and a row of a store view repeats a product.
PRESETS = {
    "shopify": Preset(
        "handle title variantprice imagesrc",
        {
            schema.PRODUCT_ID: "handle",
            schema.TITLE: "title",
            schema.BRAND: "vendor",
            schema.CATEGORY: "type productcategory",
            schema.PRICE: "variantprice",
            IMAGE: "imagesrc",
        },
        {"title": ("",), "status": ("draft", "archived"), "published": ("false",)},
    ),
    "google": Preset(
        "id title imagelink",
        {
            schema.PRODUCT_ID: "id",
            schema.TITLE: "title",
            schema.BRAND: "brand",
            schema.CATEGORY: "producttype googleproductcategory",
            schema.PRICE: "saleprice price",
            schema.URL: "link",
            IMAGE: "imagelink",
        },
    ),
    "woocommerce": Preset(
        "id type name categories images",
        {
            schema.PRODUCT_ID: "id",
            schema.TITLE: "name",
            schema.BRAND: "brands",
            schema.CATEGORY: "categories",
            schema.PRICE: "saleprice regularprice",
            IMAGE: "images",
        },
        {"type": ("variation",), "published": ("0", "-1")},
        lists=(schema.CATEGORY, IMAGE),
    ),
    "magento": Preset(
        "sku attributesetcode producttype baseimage",
        {
            schema.PRODUCT_ID: "sku",
            schema.TITLE: "name",
            schema.CATEGORY: "categories",
            schema.PRICE: "specialprice price",
            IMAGE: "baseimage",
        },
        {"visibility": ("not visible individually",), "productonline": ("2",), "storeviewcode": (ANY,)},
        lists=(schema.CATEGORY,),
    ),
}


def told_by(names: Iterable[str]) -> str:
    """The preset whose columns these are; "plain" if none's."""
    return next((name for name, preset in PRESETS.items() if preset.is_told_by(names)), "plain")


def guess(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Our columns -> the one of ``names`` that means the same, each used once."""
    left = {plain(name): name for name in reversed(list(names)) if name not in set(taken)}
    found = {}
    for ours, called in _CALLED.items():
        word = next((word for word in called.split() if word in left), None)
        if word:
            found[ours] = left.pop(word)
    return found


def may_be(ours: str, name: str) -> bool:
    """Whether a column of that name commonly is this one of ours."""
    return plain(name) in _CALLED[ours].split()


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def lacks_required(names: Iterable[str], columns: Mapping[str, str]) -> bool:
    """Whether the feed has no column for what it must have, under the names that are given or ours."""
    return any(columns.get(ours, ours) not in set(names) for ours in REQUIRED)
