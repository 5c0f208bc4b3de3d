"""Structured data of a page: JSON-LD, microdata and OpenGraph, as plain fields."""

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from bs4 import BeautifulSoup, Tag

from w2w.ingest.prices import Price, machine_price, written_price
from w2w.web.urls import resolve

Fields = dict[str, list[str]]
IsPage = Callable[[str], bool]

_PRODUCT_TYPES = {"product", "productgroup", "individualproduct", "productmodel"}
_POST_TYPES = {
    "socialmediaposting",
    "blogposting",
    "article",
    "newsarticle",
    "imageobject",
    "photograph",
    "discussionforumposting",
}
_MAX_DEPTH = 20
_MAX_THINGS, _MAX_CHAINS, _MAX_TEXTS, _MAX_FILLING = 20_000, 500, 200, 20  # limits per page, page, property and thing
_MAX_STEPS = 200_000  # reference steps per page: 150 things that all reference each other would take a day
_WRITTEN = "as people read it"  # marks a price taken from an element's text
_PARTS = ("@graph", "mainEntity", "mainEntityOfPage", "itemListElement", "item", "itemOffered", "hasVariant")
_PRICES = ("price", "lowPrice", "highPrice")
_LINKED = {
    "url",
    "image",
    "contentUrl",
    "thumbnailUrl",
    "sameAs",
    "mainEntityOfPage",
    "isVariantOf",
    "itemCondition",
    "availability",
}
_OTHER_PRICES = ("strikethroughprice", "listprice", "srp", "msrp", "regularprice", "minimumadvertisedprice")
_VOCABULARY = re.compile(r"(https?://schema\.org/|schema:)")
_LOOSE = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|/\*.*?(?:\*/|\Z)|//[^\n]*|,(?=\s*[}\]])|;\s*\Z', re.DOTALL)
_WRAPPED = (
    re.compile(r"\A(?:<!--|(?://|/\*)?\s*<!\[CDATA\[(?:\s*\*/)?|\s)+"),
    re.compile(r"(?:-->|(?://|/\*)?\s*\]\]>(?:\s*\*/)?|\s)+\Z"),
)
_OPEN_GRAPH = {
    "og:title": "title",
    "og:image": "image",
    "og:image:url": "image",
    "og:image:secure_url": "image",
    "product:brand": "brand",
    "og:brand": "brand",
    "product:price:amount": "price",
    "og:price:amount": "price",
    "product:price:currency": "currency",
    "og:price:currency": "currency",
    "product:category": "category",
    "product:retailer_item_id": "product_id",
}


def structured(soup: BeautifulSoup, record: str, url: str, is_page: IsPage) -> list[Fields]:
    """Fields of the page's product or post, by source: JSON-LD, then microdata, then OpenGraph. Prices are numbers; ``guess``
    is the currency that an ambiguous symbol may mean.

    ``is_page`` tells whether a URL is this page's. A product with this URL takes precedence; its missing fields are filled from
    its group, its variants and other products with its sku or name.
    """
    wanted, read = (_PRODUCT_TYPES, _product) if record == "product" else (_POST_TYPES, _post)
    sources = []
    for things in (_json_ld(soup), _microdata(soup, wanted)):
        graph = _Graph(things, url, is_page)
        sources += [read(graph, thing) for thing in graph.choose(wanted)]
    return [*sources, _open_graph(soup, record)]


class _Graph:
    """Things of a page, with references between them (``{"@id": ...}``) resolved: things with the same id are merged."""

    def __init__(self, documents: list, url: str, is_page: IsPage):
        self._url, self._is_page = url, is_page
        self._named: dict[str, dict] = {}
        self._steps = _MAX_STEPS
        for thing in islice(_walked(documents, None, 0), _MAX_THINGS):
            if name := self._name(thing):
                self._named[name] = thing | self._named.get(name, {})
        self._things = list(islice(_walked(documents, _PARTS, 0), _MAX_THINGS))

    def whole(self, thing: dict) -> dict:
        """The thing with everything that the rest of the page says about it."""
        return self._named.get(self._name(thing), {}) | thing

    def choose(self, wanted: set[str]) -> list[dict]:
        """The wanted thing that the page is about, and those that fill its gaps; [] if there is none."""
        chains = []
        for thing in self._of_type(self._things, wanted):
            variants = [self.whole(one) for one in _dicts(thing.get("hasVariant"))]
            chains += [[thing, *variants], *([one, thing] for one in variants)]
            if len(chains) > _MAX_CHAINS:
                break
        if not chains:
            return []
        chosen = next((c for c in chains if self.is_of_page(c[0])), chains[0])
        groups = [self.whole(one) for one in _dicts(chosen[0].get("isVariantOf"))]
        same = [one for one, *_ in chains if self._is_same(one, chosen[0])]
        return [*chosen, *groups, *same][:_MAX_FILLING]

    def _is_same(self, one: dict, other: dict) -> bool:
        """Whether two blocks describe one product: same sku, or same name if one has no sku."""
        for name in ("sku", "name"):
            values, others = self.texts(one.get(name)), self.texts(other.get(name))
            if values and others:
                return values[0] == others[0]
        return False

    def is_of_page(self, thing: dict) -> bool:
        """Whether a URL of the thing or of its offers is the page's."""
        offers = (link for offer in _dicts(thing.get("offers")) for link in self.texts(self.whole(offer).get("url")))
        values = (thing.get("url"), thing.get("@id"), thing.get("mainEntityOfPage"))
        links = [*(link for value in values for link in self.texts(value, "url", "@id")), *islice(offers, _MAX_FILLING)]
        return any(self._is_page(link) for link in links)

    def texts(self, value: object, *names: str, seen: set[str] | None = None) -> list[str]:
        """A value as a list of texts; for an object, its first non-empty property of ``names``."""
        self._steps -= 1
        if isinstance(value, bool) or value is None or self._steps < 0:
            return []
        seen = set() if seen is None else seen  # visited named things: they may reference each other in a cycle
        if isinstance(value, list):
            found = (t for one in value for t in self.texts(one, *names, seen=seen))
            return list(islice(found, _MAX_TEXTS))
        if isinstance(value, dict):
            if name := self._name(value):
                if name in seen:
                    return []
                seen.add(name)
            value = self.whole(value)
            said = (self.texts(value.get(name), *names, seen=seen) for name in (*names, "@value", "@list"))
            return next((found for found in said if found), [])
        return [str(value).strip()] if str(value).strip() else []

    def images(self, value: object) -> list[str]:
        """URLs of pictures. An ``@id`` counts as one if nothing else is given and it does not name a part of a page."""
        found = []
        for one in value[:_MAX_TEXTS] if isinstance(value, list) else [value]:
            own = self.texts(one, "contentUrl", "url", "image", "thumbnailUrl")
            name = one.get("@id") if isinstance(one, dict) else None
            found += own or ([name] if isinstance(name, str) and "#" not in name else [])
        return found

    def within(self, value: object, wanted: set[str]) -> list[dict]:
        """The things of the wanted types in a property."""
        return list(islice(self._of_type(_walked(value, _PARTS, 0), wanted), _MAX_TEXTS))

    def _of_type(self, things: Iterable[dict], wanted: set[str]) -> Iterator[dict]:
        for thing in map(self.whole, things):
            if _kinds(self.texts(thing.get("@type"))) & wanted:
                yield thing

    def _name(self, thing: dict) -> str:
        name = thing.get("@id")
        if not isinstance(name, str) or not name.strip():
            return ""
        return f"{resolve(name, self._url) or self._url}#{name.partition('#')[2]}"


def _kinds(types: list[str]) -> set[str]:
    """Names without their vocabulary, in lower case."""
    return {re.split(r"[/#:]", t.rstrip("/#"))[-1].lower() for t in types}


def _walked(value: object, names: tuple[str, ...] | None, depth: int) -> Iterator[dict]:
    """The objects of a document: list members, or values of the properties ``names`` (None: any) of other objects."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for one in value:
            yield from _walked(one, names, depth + 1)
    elif isinstance(value, dict):
        yield value
        for name in value if names is None else names:
            yield from _walked(value.get(name), names, depth + 1)


def _dicts(value: object) -> list[dict]:
    return [one for one in (value if isinstance(value, list) else [value])[:_MAX_TEXTS] if isinstance(one, dict)]


def _product(graph: _Graph, thing: dict) -> Fields:
    def texts(*names: str) -> list[str]:
        return next((found for name in names if (found := graph.texts(thing.get(name), "name"))), [])

    return _price(graph, thing) | {
        "product_id": texts("sku", "productID", "productGroupID", "mpn"),
        "title": texts("name"),
        "brand": texts("brand", "manufacturer"),
        "category": texts("category"),
        "image": graph.images(thing.get("image")),
    }


def _price(graph: _Graph, thing: dict) -> Fields:
    """The first valid price in the offers: of this page's offer, then of others. Former prices do not count."""
    currencies: list[str] = []
    offers = [graph.whole(one) for one in _dicts(thing.get("offers"))] or [thing]
    if len(offers) > 1:
        offers = sorted(offers[:_MAX_FILLING], key=lambda offer: not graph.is_of_page(offer))
    for offer in offers:
        inner = [graph.whole(one) for one in _dicts(offer.get("offers"))]  # of an AggregateOffer
        specified = [graph.whole(s) for one in (offer, *inner) for s in _dicts(one.get("priceSpecification"))]
        asked = [s for s in specified if not _is_other_price(graph, s)]
        per_unit = [s for s in asked if "referenceQuantity" in s]
        for one in (offer, *inner, *(s for s in asked if s not in per_unit), *per_unit):
            own = [c for o in (one, offer) for c in graph.texts(o.get("priceCurrency"))]
            currencies += own[:1]
            for price in _prices(graph, one):
                currency = [price.currency] if price.currency else own or currencies
                return {"price": [price.number], "currency": currency[:1], "guess": [price.guess]}
    return {"currency": currencies[:1]}


def _prices(graph: _Graph, thing: dict) -> Iterator[Price]:
    for name in _PRICES[:2]:
        values = thing.get(name)
        for value in values[:_MAX_TEXTS] if isinstance(values, list) else [values]:
            if isinstance(value, dict) and _WRITTEN in value:
                prices = [written_price(value[_WRITTEN])]
            else:
                prices = [machine_price(text) for text in graph.texts(value, "value")]
            yield from (price for price in prices if price.number)


def _is_other_price(graph: _Graph, specification: dict) -> bool:
    return any(t.rpartition("/")[2].lower() in _OTHER_PRICES for t in graph.texts(specification.get("priceType")))


def _post(graph: _Graph, thing: dict) -> Fields:
    products = [p for name in ("mentions", "about") for p in graph.within(thing.get(name), _PRODUCT_TYPES)]
    return {
        "post_id": graph.texts(thing.get("identifier"), "value"),
        "image": graph.images(thing.get("image")) or graph.texts(thing.get("contentUrl")),
        "product_ids": [t for p in products for t in (graph.texts(p.get("sku")) or graph.texts(p.get("productID")))],
        "product_urls": [t for p in products for t in (graph.texts(p.get("url")) or graph.texts(p.get("@id")))],
    }


# JSON-LD


def _json_ld(soup: BeautifulSoup) -> list:
    scripts = soup.find_all("script", type=re.compile(r"^\s*application/ld\+json", re.IGNORECASE))
    return [_json(script.string or script.get_text()) for script in scripts]


def _json(text: str) -> object:
    """The value, or None. Tolerates what shops write: surrounding comments, line breaks in strings, commas before brackets."""
    text = _WRAPPED[0].sub("", text.strip("\ufeff \t\r\n"))
    text = text[:-40] + _WRAPPED[1].sub("", text[-40:])
    for attempt in (str, _without_loose_ends, lambda t: _without_loose_ends(html.unescape(t))):
        try:
            return json.loads(
                attempt(text), strict=False, parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_object
            )
        except RecursionError:
            return None
        except ValueError:
            continue
    return None


def _without_loose_ends(text: str) -> str:
    return _LOOSE.sub(lambda m: m[0] if m[0].startswith('"') else "", text)


def _object(pairs: list[tuple[str, object]]) -> dict:
    return {_VOCABULARY.sub("", name, count=1): value for name, value in pairs}


# microdata


def _microdata(soup: BeautifulSoup, wanted: set[str]) -> list[dict]:
    """Items of the wanted types as equivalent JSON-LD, top-level ones first."""
    scopes = [scope for scope in soup.find_all(itemscope=True, itemtype=True) if _kinds(scope["itemtype"].split()) & wanted]
    return [_scope(scope, 0) for scope in sorted(scopes, key=lambda s: s.has_attr("itemprop"))[:_MAX_FILLING]]


def _scope(scope: Tag, depth: int) -> dict:
    thing: dict[str, list] = {"@type": str(scope.get("itemtype", "")).split()}
    if scope.get("itemid"):
        thing["@id"] = [str(scope["itemid"])]
    todo = [child for child in scope.children if isinstance(child, Tag)][::-1]
    while todo:
        tag = todo.pop()
        inner = tag.has_attr("itemscope")
        names = tag.get("itemprop") or []
        for name in names.split() if isinstance(names, str) else names:
            if inner and depth < _MAX_DEPTH:
                value = _scope(tag, depth + 1)
            else:
                value = _value(tag, name)
                if name in _PRICES and not tag.get("content"):
                    value = {_WRITTEN: value}
            thing.setdefault(name, []).append(value)
        if not inner:
            todo += [child for child in tag.children if isinstance(child, Tag)][::-1]
    return {name: values[0] if len(values) == 1 else values for name, values in thing.items()}


def _value(tag: Tag, name: str) -> str:
    """A property's value (HTML standard, 5.2.3), or any element's ``content``. For a link around a name, its text is the
    name."""
    linked = tag.name not in ("a", "area") or name in _LINKED
    attributes = ("content", "src", "data-src", "href", "datetime", "value", "data") if linked else ("content",)
    for attribute in attributes:
        if tag.get(attribute) and not str(tag[attribute]).startswith("data:"):
            return str(tag[attribute])
    return tag.get_text(" ", strip=True)


# OpenGraph


def _open_graph(soup: BeautifulSoup, record: str) -> Fields:
    found: Fields = {}
    for meta in soup.find_all("meta", content=True):
        name = _OPEN_GRAPH.get(str(meta.get("property") or meta.get("name") or "").lower())
        if name and (record == "product" or name == "image"):
            found.setdefault(name, []).append(str(meta["content"]).strip())
    for text in found.pop("price", []):
        if (price := machine_price(text)).number:
            currency = [price.currency] if price.currency else found.get("currency", [])
            return found | {"price": [price.number], "currency": currency, "guess": [price.guess]}
    return found
