"""Feeds as shop systems export them: which of their columns is which of ours, and which of their rows are no products."""

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.ingest.amounts import decimal_sign, numbers
from w2w.ingest.families import PAIRS, Kin, families_of, with_families
from w2w.ingest.headings import plain
from w2w.ingest.paths import NAME
from w2w.ingest.pictures import listed
from w2w.ingest.raw import (
    DELETED,
    IMAGE,
    PATHS,
    REQUIRED,
    SALE_DATES,
    RawBatch,
    attributes_of,
    deletes,
    entries_of,
    is_one_of,
    map_of,
    trimmed,
)
from w2w.ingest.variants import OPTION_COLUMNS, OPTIONS, Said, by_product, said_in

# our column -> common names in feeds, letters and digits only, likeliest first
_CALLED = {
    schema.PRODUCT_ID: "productid awproductid id sku articleid itemid productcode productcodesku articlenumber itemnumber code "
    "gtin ean handle",
    IMAGE: "image imageurl imagelink imageuri img imgurl picture pictureurl photo photourl productimage productimageurl "
    "merchantimageurl awimageurl largeimage imagepath imagefile filename imagesrc imagessrc imagesurl images imgsmainurl",
    schema.TITLE: "title name productname displayname productdisplayname producttitle",
    schema.BRAND: "brand brandname vendor manufacturer brands",
    schema.PRICE: "price currentprice productprice regularprice searchprice pricevat amount priceamount pricevalue "
    "variantsprice",
    schema.CURRENCY: "currency pricecurrency currencycode",
    schema.CATEGORY: "category merchantproductcategorypath merchantcategory categoryname producttype articletype categorytext "
    "categories categoriesname cat googleproductcategory fbproductcategory advertisercategory subcategory mastercategory type",
    schema.URL: "url link producturl productlink pageurl permalink deeplink awdeeplink merchantdeeplink buyurl",
    schema.GROUP_ID: "groupid itemgroupid parentid parentproductid parentsku stylecode",
    schema.AVAILABILITY: "availability instock stockstatus variantsavailable stock stockquantity avail",
    schema.SALE_PRICE: "saleprice specialprice discountprice",
    SALE_DATES: "salepriceeffectivedate",
    schema.GENDER: "gender fashionsuitablefor",
    schema.COLOUR: "colour color colours colors basecolour",
    schema.SIZE_SAID: "size sizes fashionsize",
    schema.IMAGE_LIST: "additionalimagelink additionalimagelinks additionalimages additionalimage additionalimageurls "
    "moreimages images pictures photos gallery imagessrc imagesurl imgurlalternative imgsiurl",
}
_WEAK = "type subcategory mastercategory code filename amount"  # of a feed that has our own names, these may be anything
_HOLDERS = "attributes properties details specifications specs features options product metafields attrs param params"
_IN_PACKED = {
    **OPTIONS,
    schema.GENDER: ("gender",),
    schema.BRAND: ("brand", "manufacturer"),
}
_AMERICAN = r"^([0-9]{1,2})/([0-9]{1,2})/(?:20)?([0-9]{2})(?:,? .*)?$"  # 2/14/26: month, day, year
_LIST = r",\s+"  # between the parts of a value that is a list
_CATEGORIES = {sign: re.compile(rf"(?<!\\){sign}\s*") for sign in ",;"}  # a comma within one is \,
_OF_PICTURES = ("imageposition", "variantimage")  # of the rows of a product
ANY = "*"  # any value


@dataclass(frozen=True)
class Preset:
    """``columns``: ours -> theirs, of several the first that has a value in the row. ``aside``: column -> what it says, in
    small letters, in rows that are variants, further pictures or not on sale; "" if it says nothing. Names of columns are
    compared by letters and digits alone."""

    signs: str
    columns: Mapping[str, str]
    aside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    of_variants: tuple[str, ...] = ()  # columns of ``aside`` that tell variants
    lists: tuple[str, ...] = ()  # our columns of which the first part of their value counts
    parted: str = ","  # the sign between categories
    options: tuple[str, str] | None = None  # names of the columns that hold an option's name and its value, with {} for 1, 2, 3
    packed: str = ""  # a column of NAME=VALUE, parted by commas
    dates: tuple[str, ...] = ()  # when a sale price begins and ends
    kin: Kin | None = None  # variants are rows of their own
    pictures: tuple[str, ...] = ()  # columns of pictures, the front one first
    compared: bool = False  # the price counts only where it is above the sale price, which is what the product costs
    guessed: bool = False  # what ``columns`` does not name is told as of a feed without a preset
    gathered: bool = False  # the rows of a product, one below another, are variants and pictures of it

    def is_told_by(self, names: Iterable[str]) -> bool:
        return set(self.signs.split()) <= {plain(name) for name in names}

    def first_of(self, names: Iterable[str]) -> dict[str, str]:
        """Our column -> the first of theirs that is there."""
        there = {plain(name): name for name in reversed(list(names))}
        found = {ours: next((there[t] for t in theirs.split() if t in there), None) for ours, theirs in self.columns.items()}
        return {ours: theirs for ours, theirs in found.items() if theirs}

    def gather(
        self, read: Callable[[], Iterator[RawBatch]], columns: Mapping[str, str], decimal: str, now: datetime
    ) -> Iterator[RawBatch]:
        """The batches, with what the rows of its variants and pictures say of a product in its own. Where those may be
        anywhere, the source is read twice."""
        if self.kin:
            variants = self._variants(read(), columns)
            return with_families(self.kin, families_of(self.kin, variants, decimal, now, self._dates), read(), columns, plain)
        return by_product(read(), columns, plain, decimal) if self._gathers(columns) else read()

    def _gathers(self, columns: Mapping[str, str]) -> bool:
        return self.gathered and plain(columns.get(schema.PRODUCT_ID, "")) == self.columns.get(schema.PRODUCT_ID)

    def _variants(self, batches: Iterator[RawBatch], columns: Mapping[str, str]) -> Iterator[tuple[RawBatch, Said]]:
        """The rows that are on sale, variants among them."""
        for raw in batches:
            kept = raw.filter(pa.array(self._is_sold(raw, said_in(raw, columns, plain), variants=True)))
            yield kept, said_in(kept, columns, plain)

    def _is_sold(self, raw: RawBatch, said: Said, variants: bool) -> np.ndarray:
        """bool, shape (n,): the rows that are not aside; with ``variants`` those count, too."""
        keep = np.ones(len(raw.source), bool)
        for theirs, values in self.aside.items():
            if variants and theirs in self.of_variants:
                continue
            cells = said(theirs)
            text = pc.fill_null(pc.utf8_lower(cells), "")
            if ANY in values:
                meant = pc.not_equal(text, "")
            elif all(values):  # one of several words, too: variation, virtual
                meant = pc.match_substring_regex(text, rf"(?:^|,)\s*(?:{'|'.join(map(re.escape, values))})\s*(?:,|$)")
            else:
                meant = pc.is_in(text, value_set=pa.array(values, pa.string()))
            keep &= ~meant.to_numpy(zero_copy_only=False)
        return keep

    def _dates(self, said: Said) -> pa.Array:
        """When the sale price begins and ends, as an interval."""
        start, end = (pc.replace_substring_regex(said(one), _AMERICAN, r"20\3-\1-\2") for one in self.dates)
        both = pc.binary_join_element_wise(pc.fill_null(start, ""), pc.fill_null(end, ""), "/")
        return pc.if_else(pc.equal(both, "/"), None, both)

    def applied(self, raw: RawBatch, columns: Mapping[str, str], attributes: Iterable[str] | None) -> RawBatch:
        """The rows that are products, with these attributes (None: all that are not mapped). ``raw`` was read with ``columns``
        (``first_of``) and every other column as attribute."""
        count = len(raw.source)
        said = said_in(raw, columns, plain)
        here = dict(raw.columns)
        for ours in here.keys() & self.columns.keys():
            if ours == schema.IMAGE_LIST:
                continue
            own = plain(columns[ours]) if ours in columns else ""
            if own in self.columns[ours].split():
                values = pc.coalesce(*(trimmed(here[ours]) if t == own else said(t) for t in self.columns[ours].split()))
                here[ours] = self._of_list(ours, values) if ours in self.lists else values
        if self.compared and schema.SALE_PRICE in here:
            here[schema.PRICE] = _above(here[schema.PRICE], trimmed(here[schema.SALE_PRICE]))
        if self.pictures:
            listing = here.get(schema.IMAGE_LIST, pa.nulls(count, pa.string()))
            rows = zip(*(said(one).to_pylist() for one in self.pictures), listing.to_pylist())
            here[schema.IMAGE_LIST] = pa.array([_together(row) for row in rows], pa.string())
        if self.options:
            for ours, values in self._chosen(said, count).items():
                here[ours] = pc.coalesce(here[ours], values) if ours in here else values
        for ours, values in _packed(said(self.packed)).items() if self.packed else ():
            here[ours] = pc.coalesce(here[ours], values) if ours in here else values
        if self.dates:
            here[SALE_DATES] = self._dates(said)
        gone = deletes(raw.columns.get(DELETED, pa.nulls(count, pa.string()))).to_numpy(zero_copy_only=False)
        keep = gone | self._is_sold(raw, said, variants=False)
        kept = pa.array(keep)
        if attributes is None:
            wanted = self._unread(raw, said, self._gathers(columns))
        else:
            wanted = attributes_of({name: said(plain(name)) for name in sorted(attributes)}, count)
        return replace(raw, columns=here, attributes=wanted, num_left_out=int(count - keep.sum())).filter(kept)

    def _unread(self, raw: RawBatch, said: Said, gathered: bool) -> pa.MapArray:
        """The attributes without what became pictures and dates, and without options and packed values that are ours."""
        of, keys, items = entries_of(raw.attributes)
        coded = keys.dictionary_encode()
        names = pa.array(list(map(plain, coded.dictionary.to_pylist())), pa.string()).take(coded.indices)
        gone = is_one_of(names, [*self.pictures, *self.dates, *(_OF_PICTURES if gathered else ())])
        options = self.options or (OPTION_COLUMNS if gathered else ())
        for number in range(1, 4) if options else ():
            both = [one.format(number) for one in options]
            is_ours = is_one_of(pc.utf8_lower(trimmed(said(both[0]))), [word for words in OPTIONS.values() for word in words])
            gone |= is_one_of(names, both) & is_ours[of]
        if self.packed and (here := is_one_of(names, [self.packed])).any():
            left = [_without_ours(text) for text in items.filter(pa.array(here)).to_pylist()]
            items = pc.replace_with_mask(items, pa.array(here), pa.array(left, pa.string()))
            gone |= items.is_null().to_numpy(zero_copy_only=False)
        return map_of(len(raw.source), of[~gone], keys.filter(pa.array(~gone)), items.filter(pa.array(~gone)))

    def _of_list(self, ours: str, values: pa.Array) -> pa.Array:
        """The first of each list; of categories all, with PATHS between them."""
        if ours != schema.CATEGORY:
            return pc.list_element(pc.split_pattern_regex(values, _LIST), 0)
        said = values.dictionary_encode()
        texts = map(html.unescape, said.dictionary.to_pylist())
        lists = [PATHS.join(_CATEGORIES[self.parted].split(text)).replace("\\,", ",") for text in texts]
        return pa.array(lists, pa.string()).take(said.indices)

    def _chosen(self, said: Said, count: int) -> dict[str, pa.Array]:
        """Colour and size, from columns of options."""
        assert self.options is not None
        found = {}
        for number in range(1, 4):
            names, values = (trimmed(said(one.format(number))) for one in self.options)
            for ours, called in OPTIONS.items():
                is_it = pc.is_in(pc.utf8_lower(names), value_set=pa.array(called))
                mine = pc.if_else(pc.fill_null(is_it, False), values, pa.scalar(None, pa.string()))
                found[ours] = pc.coalesce(found[ours], mine) if ours in found else mine
        return {ours: values for ours, values in found.items() if values.null_count < count}


def _above(price: pa.Array, sale: pa.Array) -> pa.Array:
    """The prices; those that are not above the sale price are that."""
    sign = decimal_sign(pa.concat_arrays([price, sale])) or "."  # 1,299 and 1,499 are in the same order either way
    return pc.if_else(pc.fill_null(pc.less_equal(numbers(price, sign), numbers(sale, sign)), False), sale, price)


def _together(cells: Iterable[str | None]) -> str | None:
    """The pictures of several cells as one list."""
    found = dict(one for cell in cells for one in listed(cell or ""))
    return json.dumps([{"src": src, schema.ROLE: role} for src, role in found.items()]) if found else None


def _packed(said: pa.Array) -> dict[str, pa.Array]:
    """What a column of attributes (color=Red,size=M) says of columns of ours."""
    rows = [{name.lower(): value for name, value in PAIRS.findall(text)} if text else {} for text in said.to_pylist()]
    found = {ours: [next((row[c] for c in called if row.get(c)), None) for row in rows] for ours, called in _IN_PACKED.items()}
    return {ours: pa.array(values, pa.string()) for ours, values in found.items() if any(values)}


def _without_ours(text: str) -> str | None:
    """What a column of attributes says beside columns of ours."""
    ours = {name for called in _IN_PACKED.values() for name in called}
    return ",".join(f"{name}={value}" for name, value in PAIRS.findall(text) if name.lower() not in ours) or None


# Shopify: a row a variant or picture, only the first of a product has a title; in products.json an object a product.
# WooCommerce: variations are rows of their own.
# Magento 2: simple products of a configurable one are not visible, and a row of a store view repeats a product.
PRESETS = {
    "shopify": Preset(
        "handle title variantprice imagesrc",
        {
            schema.PRODUCT_ID: "handle",
            schema.TITLE: "title",
            schema.BRAND: "vendor",
            schema.CATEGORY: "type productcategory",
            schema.PRICE: "variantcompareatprice variantprice",
            schema.SALE_PRICE: "variantprice",
            schema.GENDER: "googleshoppinggender",
            IMAGE: "imagesrc",
        },
        {"title": ("",), "status": ("draft", "archived"), "published": ("false",)},
        compared=True,
        gathered=True,
    ),
    "shopify_json": Preset(
        "handle title variantsprice publishedat",
        {schema.PRICE: "variantscompareatprice variantsprice", schema.SALE_PRICE: "variantsprice"},
        {"status": ("draft", "archived"), "publishedat": ("",)},
        compared=True,
        guessed=True,
    ),
    "google": Preset(
        "id title imagelink",
        {
            schema.PRODUCT_ID: "id",
            schema.TITLE: "title",
            schema.BRAND: "brand",
            schema.CATEGORY: "producttype googleproductcategory",
            schema.PRICE: "price",
            schema.SALE_PRICE: "saleprice",
            SALE_DATES: "salepriceeffectivedate",
            schema.URL: "link",
            schema.GROUP_ID: "itemgroupid",
            schema.AVAILABILITY: "availability",
            schema.GENDER: "gender",
            schema.COLOUR: "color colour",
            schema.SIZE_SAID: "size",
            IMAGE: "imagelink",
            schema.IMAGE_LIST: "additionalimagelink additionalimagelinks",
        },
    ),
    "woocommerce": Preset(
        "id type name categories images",
        {
            schema.PRODUCT_ID: "id sku",
            schema.TITLE: "name",
            schema.BRAND: "brands",
            schema.CATEGORY: "categories",
            schema.PRICE: "regularprice",
            schema.SALE_PRICE: "saleprice",
            schema.AVAILABILITY: "instock",
            schema.URL: "permalink",
            IMAGE: "images",
            schema.IMAGE_LIST: "images",
        },
        {"type": ("variation",), "published": ("0", "-1")},
        lists=(schema.CATEGORY, IMAGE),
        options=("attribute{}name", "attribute{}values"),
        dates=("datesalepricestarts", "datesalepriceends"),
        kin=Kin("type", ("variable",), parent="parent"),
        of_variants=("type",),
    ),
    "bigcommerce": Preset(
        "itemtype productname productcodesku category",
        {
            schema.PRODUCT_ID: "productid productcodesku",
            schema.TITLE: "productname",
            schema.BRAND: "brandname",
            schema.CATEGORY: "category",
            schema.PRICE: "price",
            schema.SALE_PRICE: "saleprice",
            schema.URL: "producturl",
        },
        {"itemtype": ("sku", "rule"), "productvisible": ("n", "no", "false", "0")},
        lists=(schema.CATEGORY,),
        parted=";",
    ),
    "magento": Preset(
        "sku attributesetcode producttype baseimage",
        {
            schema.PRODUCT_ID: "sku",
            schema.TITLE: "name",
            schema.CATEGORY: "categories",
            schema.PRICE: "price",
            schema.SALE_PRICE: "specialprice",
            schema.AVAILABILITY: "isinstock",
            IMAGE: "baseimage",
            schema.IMAGE_LIST: "additionalimages",
        },
        {"visibility": ("not visible individually",), "productonline": ("2",), "storeviewcode": (ANY,)},
        lists=(schema.CATEGORY,),
        packed="additionalattributes",
        dates=("specialpricefromdate", "specialpricetodate"),
        kin=Kin("producttype", ("configurable",), children="configurablevariations", own_stock=True),
        of_variants=("visibility",),
    ),
}


def told_by(names: Iterable[str]) -> str:
    """The preset whose columns these are; "plain" if none's."""
    return next((name for name, preset in PRESETS.items() if preset.is_told_by(names)), "plain")


def guess(names: Iterable[str], taken: Iterable[str] = (), sure: bool = False) -> dict[str, str]:
    """Our columns -> the one of ``names`` that means the same, each used once. What lies in an object of attributes counts as
    if it lay outside. With ``sure`` words that mean many things are not enough."""
    free = [name for name in reversed(list(names)) if name not in set(taken)]
    left = {plain(name): name for name in free}
    inner = {plain(bare): name for name in free if (bare := _without_holder(name))}
    found: dict[str, str] = {}
    for ours, called in _CALLED.items():
        words = [word for word in called.split() if not (sure and word in _WEAK.split())]
        names = [some[word] for some in (left, inner) for word in words if word in some and some[word] not in found.values()]
        found |= {ours: names[0]} if names else {}
    return found


def _without_holder(name: str) -> str:
    """colour, of attributes.colour; "" if nothing of the kind holds it, or it is what the attributes of a list are called."""
    outer, dot, rest = name.partition(".")
    is_name = outer.endswith("[]") and rest in NAME
    return rest if dot and plain(outer) in _HOLDERS.split() and not is_name else ""


def is_held(path: str) -> bool:
    """Whether it lies in something that holds attributes."""
    return bool(_without_holder(path))


def may_be(ours: str, name: str) -> bool:
    """Whether a column of that name commonly is this one of ours."""
    return plain(name) in _CALLED[ours].split()


def lacks_required(names: Iterable[str], columns: Mapping[str, str]) -> bool:
    """Whether the feed has no column for what it must have, under the names that are given or ours."""
    return any(columns.get(ours, ours) not in set(names) for ours in REQUIRED)
