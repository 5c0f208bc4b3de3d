"""What a page says about itself for machines: JSON-LD, microdata and OpenGraph, as plain fields."""

import json
import re
from collections.abc import Iterator

from bs4 import BeautifulSoup, Tag

Fields = dict[str, list[str]]

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


def structured(soup: BeautifulSoup, record: str) -> Fields:
    """Fields of the page's product or post; of two sources that name one, JSON-LD goes before microdata before OpenGraph."""
    found: Fields = {}
    for source in (_json_ld(soup, record), _microdata(soup, record), _open_graph(soup, record)):
        for name, values in source.items():
            if name not in found and (values := [v for v in values if v]):
                found[name] = values
    return found


def _json_ld(soup: BeautifulSoup, record: str) -> Fields:
    wanted = _PRODUCT_TYPES if record == "product" else _POST_TYPES
    for script in soup.find_all("script", type=re.compile(r"^\s*application/ld\+json", re.IGNORECASE)):
        for thing in _things(_json(script.string or script.get_text()), 0):
            if _types(thing) & wanted:
                return _product(thing) if record == "product" else _post(thing)
    return {}


def _json(text: str) -> object:
    """The value, or None: shops wrap it in comments, and put line breaks into strings."""
    text = re.sub(r"^\s*(<!--|//<!\[CDATA\[|<!\[CDATA\[)|(-->|//\]\]>|\]\]>)\s*$", "", text.strip())
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _things(value: object, depth: int) -> Iterator[dict]:
    """The objects of a JSON-LD document, graphs and lists opened."""
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for one in value:
            yield from _things(one, depth + 1)
    elif isinstance(value, dict):
        yield value
        for name in ("@graph", "mainEntity", "mainEntityOfPage", "itemListElement", "item"):
            yield from _things(value.get(name), depth + 1)


def _types(thing: dict) -> set[str]:
    return {t.rpartition("/")[2].lower() for t in _texts(thing.get("@type"))}


def _texts(value: object, *names: str) -> list[str]:
    """A value as a list of texts: of an object, its first property of ``names`` that says something."""
    if isinstance(value, list):
        return [t for one in value for t in _texts(one, *names)]
    if isinstance(value, dict):
        return next((found for name in names if (found := _texts(value.get(name), *names))), [])
    if isinstance(value, bool) or value is None:
        return []
    return [str(value).strip()] if str(value).strip() else []


def _product(thing: dict) -> Fields:
    offers = thing.get("offers")
    offer = next((o for o in (offers if isinstance(offers, list) else [offers]) if isinstance(o, dict)), {})
    specification = offer.get("priceSpecification")
    if isinstance(specification, list):
        specification = next(iter(specification), {})
    priced = specification if isinstance(specification, dict) and "price" not in offer else offer
    return {
        "product_id": _texts(thing.get("sku")) or _texts(thing.get("productID")) or _texts(thing.get("mpn")),
        "title": _texts(thing.get("name")),
        "brand": _texts(thing.get("brand"), "name") or _texts(thing.get("manufacturer"), "name"),
        "price": _texts(priced.get("price")) or _texts(offer.get("lowPrice")),
        "currency": _texts(priced.get("priceCurrency")) or _texts(offer.get("priceCurrency")),
        "category": _texts(thing.get("category"), "name"),
        "image": _texts(thing.get("image"), "contentUrl", "url", "@id"),
    }


def _post(thing: dict) -> Fields:
    products = [p for name in ("mentions", "about") for p in _things(thing.get(name), 0) if _types(p) & _PRODUCT_TYPES]
    return {
        "post_id": _texts(thing.get("identifier"), "value"),
        "image": _texts(thing.get("image"), "contentUrl", "url", "@id") or _texts(thing.get("contentUrl")),
        "product_ids": [t for p in products for t in (_texts(p.get("sku")) or _texts(p.get("productID")))],
        "product_urls": [t for p in products for t in (_texts(p.get("url")) or _texts(p.get("@id")))],
    }


def _microdata(soup: BeautifulSoup, record: str) -> Fields:
    wanted = _PRODUCT_TYPES if record == "product" else _POST_TYPES
    for scope in soup.find_all(itemscope=True, itemtype=True):
        if scope["itemtype"].strip().rpartition("/")[2].lower() in wanted:
            thing = _scope(scope, 0)
            return _product(thing) if record == "product" else _post(thing)
    return {}


def _scope(scope: Tag, depth: int) -> dict:
    """A microdata item as the JSON-LD that would say the same."""
    thing: dict[str, list] = {"@type": [scope.get("itemtype", "")]}
    todo = [child for child in scope.children if isinstance(child, Tag)]
    while todo:
        tag = todo.pop(0)
        inner = tag.has_attr("itemscope")
        for name in (tag.get("itemprop") or "").split() if isinstance(tag.get("itemprop"), str) else tag.get("itemprop") or []:
            thing.setdefault(name, []).append(_scope(tag, depth + 1) if inner and depth < _MAX_DEPTH else _value(tag))
        if not inner:
            todo = [child for child in tag.children if isinstance(child, Tag)] + todo
    return {name: values[0] if len(values) == 1 else values for name, values in thing.items()}


def _value(tag: Tag) -> str:
    for attribute in ("content", "src", "href", "datetime", "value", "data"):
        if tag.get(attribute):
            return str(tag[attribute])
    return tag.get_text(" ", strip=True)


def _open_graph(soup: BeautifulSoup, record: str) -> Fields:
    found: Fields = {}
    for meta in soup.find_all("meta", content=True):
        name = _OPEN_GRAPH.get(str(meta.get("property") or meta.get("name") or "").lower())
        if name and (record == "product" or name == "image"):
            found.setdefault(name, []).append(str(meta["content"]).strip())
    return found
