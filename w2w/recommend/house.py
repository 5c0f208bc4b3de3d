"""House rules: what a merchandiser wants shown and not shown, as a YAML file.

    price: {min: 10, max: 120, currency: EUR}     # of each recommended product
    total: {max: 300}                             # of a whole outfit
    stock: {attribute: stock, min: 1}             # or any: sold-out products too
    only:                                         # filters
      - {category: shoes, colour: [black, white]}
    brands: any                                   # or same, or different: within an outfit
    pin:
      - {product: sku-31, for: {category: dress}} # with every dress, these
      - {category: bag}                           # a bag in every outfit
    ban:
      - {brand: Plain Goods}
    never_together:
      - [{brand: Fjord}, {brand: Avenida}]
    max_uses: 2                                   # of a product among the answers to one question, except for pinned ones

A selector ({product: ..., category: ..., brand: ..., or any attribute}) matches products that meet all of its conditions; in a
list, one value is enough. Values are compared as written, ignoring surrounding blanks and, except for product ids, case.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from w2w.config import nearest
from w2w.errors import UsageError

PRODUCT, CATEGORY, BRAND, FOR = "product", "category", "brand", "for"
ANY, SAME, DIFFERENT = BRANDS = ("any", "same", "different")
_KEYS = ("price", "total", "stock", "only", "brands", "pin", "ban", "never_together", "max_uses")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Selector:
    """Products that meet all conditions: key -> values, one of which must match, in lower case except for ids. ``line``: in the
    file."""

    wanted: tuple[tuple[str, tuple[str, ...]], ...]
    line: int = field(default=0, compare=False)

    def values(self, key: str) -> tuple[str, ...]:
        return dict(self.wanted).get(key, ())

    def __str__(self) -> str:
        return ", ".join(f"{key} {' or '.join(values)}" for key, values in self.wanted)


@dataclass(frozen=True)
class Wish:
    """A pin or ban of products; limited to questions with products that ``beside`` selects, if given."""

    what: Selector
    beside: Selector | None = None


@dataclass(frozen=True)
class House:
    """The rules of a file. Without one: nothing sold out, and a product at most twice among the answers to a question."""

    price_min: float | None = None
    price_max: float | None = None
    currency: str | None = None
    total_max: float | None = None
    stock_attribute: str | None = None
    stock_min: float = 1.0
    any_stock: bool = False
    only: tuple[Selector, ...] = ()
    brands: str = ANY
    pins: tuple[Wish, ...] = ()
    bans: tuple[Wish, ...] = ()
    never_together: tuple[tuple[Selector, Selector], ...] = ()
    max_uses: int = 2
    name: str = field(default="", compare=False)

    @property
    def combining(self) -> str:
        """The rules about what stands together, for a sentence."""
        told = [f"brands: {self.brands}"] if self.brands != ANY else []
        told += [f"never_together of line {a.line}" for a, _ in self.never_together]
        told += [f"total.max={self.total_max:g}"] if self.total_max is not None else []
        return " or ".join([*told, f"max_uses={self.max_uses}"])

    def refuse(self, line: int, why: str) -> NoReturn:
        raise UsageError(f"{self.name}, line {line}: {why}")


def read_house(data: bytes, name: str) -> House:
    """The rules in a YAML file called ``name``. Raises UsageError naming the wrong line."""
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{name}: {len(data):,} bytes are too many for a file that a person edits")
    try:
        root = yaml.compose(data.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except UnicodeDecodeError as e:
        raise UsageError(f"{name}: not UTF-8 text") from e
    except (yaml.YAMLError, RecursionError) as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{name}{where}: not valid YAML: {getattr(e, 'problem', None) or type(e).__name__}") from e
    return House(name=name) if root is None else _Reader(name).house(root)


class _Reader:
    """Parses YAML nodes into rules; each knows its line."""

    def __init__(self, name: str):
        self._name = name

    def _fail(self, node: yaml.Node, why: str) -> NoReturn:
        raise UsageError(f"{self._name}, line {node.start_mark.line + 1}: {why}")

    def house(self, root: yaml.Node) -> House:
        parts = self._mapping(root, "the file", _KEYS)
        found: dict[str, Any] = {}
        price = self._mapping(parts["price"], "price", ("min", "max", "currency")) if "price" in parts else {}
        for key in ("min", "max"):
            if key in price:
                found[f"price_{key}"] = self._number(price[key], f"price.{key}")
        if "currency" in price:
            found["currency"] = self._text(price["currency"], "price.currency").upper()
        if found.get("price_min", 0) > found.get("price_max", float("inf")):
            self._fail(price["min"], f"price.min={found['price_min']:g} is above price.max={found['price_max']:g}")
        if "total" in parts:
            total = self._mapping(parts["total"], "total", ("max",))
            if "max" not in total:
                self._fail(parts["total"], "total needs max")
            found["total_max"] = self._number(total["max"], "total.max")
        if "stock" in parts:
            found |= self._stock(parts["stock"])
        if "brands" in parts:
            found["brands"] = self._text(parts["brands"], "brands").lower()
            if found["brands"] not in BRANDS:
                self._fail(parts["brands"], f"brands is one of {', '.join(BRANDS)}.{nearest(found['brands'], list(BRANDS))}")
        if "max_uses" in parts:
            uses = self._number(parts["max_uses"], "max_uses")
            if uses < 1 or uses != int(uses):
                self._fail(parts["max_uses"], f"max_uses={uses:g}: a whole number from 1")
            found["max_uses"] = int(uses)
        found["only"] = self._list(parts, "only", self._filter)
        found["pins"] = self._list(parts, "pin", self._pin)
        found["bans"] = self._list(parts, "ban", self._wish)
        found["never_together"] = self._list(parts, "never_together", self._two)
        house = House(name=self._name, **found)
        for pin in house.pins:
            for ban in house.bans:
                if pin == ban:
                    house.refuse(pin.what.line, f"{pin.what} is pinned here and banned in line {ban.what.line}")
        return house

    def _stock(self, node: yaml.Node) -> dict[str, Any]:
        if isinstance(node, yaml.ScalarNode):
            if node.value.strip().lower() != ANY:
                self._fail(node, f"stock is {ANY}, or {{attribute: NAME, min: NUMBER}}")
            return {"any_stock": True}
        parts = self._mapping(node, "stock", ("attribute", "min"))
        if "attribute" not in parts:
            self._fail(node, "stock needs attribute: the feed's column")
        found: dict[str, Any] = {"stock_attribute": self._text(parts["attribute"], "stock.attribute")}
        return found | ({"stock_min": self._number(parts["min"], "stock.min")} if "min" in parts else {})

    def _pin(self, node: yaml.Node) -> Wish:
        wish = self._wish(node)
        if not wish.what.values(PRODUCT) and not wish.what.values(CATEGORY):
            self._fail(node, "a pin names a product or a category: which place is it for?")
        return wish

    def _wish(self, node: yaml.Node) -> Wish:
        beside = None
        if isinstance(node, yaml.MappingNode):
            kept = [(k, v) for k, v in node.value if k.value != FOR]
            given = [v for k, v in node.value if k.value == FOR]
            if len(given) > 1:
                self._fail(node, f"{FOR!r} is given twice")
            beside = self._selector(given[0]) if given else None
            node = yaml.MappingNode(node.tag, kept, node.start_mark, node.end_mark)
        return Wish(self._selector(node), beside)

    def _filter(self, node: yaml.Node) -> Selector:
        found = self._selector(node)
        if {key for key, _ in found.wanted} <= {CATEGORY}:
            self._fail(node, "a filter says what the products of a category must be: {category: shoes, colour: [black, white]}")
        return found

    def _two(self, node: yaml.Node) -> tuple[Selector, Selector]:
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
            self._fail(node, "never_together lists pairs: [{brand: A}, {brand: B}]")
        a, b = (self._selector(one) for one in node.value)
        return a, b

    def _selector(self, node: yaml.Node) -> Selector:
        wanted = []
        for key, value in self._mapping(node, "a selector", None).items():
            values = value.value if isinstance(value, yaml.SequenceNode) else [value]
            texts = tuple(self._text(one, key) for one in values)
            texts = texts if key == PRODUCT else tuple(text.lower() for text in texts)
            if not texts:
                self._fail(value, f"{key} has no value")
            wanted.append((key, texts))
        if not wanted:
            self._fail(node, "a selector is empty: {product: ...}, {category: ...}, {brand: ...} or an attribute")
        return Selector(tuple(sorted(wanted)), node.start_mark.line + 1)

    def _list(self, parts: Mapping[str, yaml.Node], key: str, one: Callable[[yaml.Node], Any]) -> tuple:
        if key not in parts:
            return ()
        node = parts[key]
        if not isinstance(node, yaml.SequenceNode):
            self._fail(node, f"{key} is a list: a line for each, beginning with '-'")
        return tuple(one(child) for child in node.value)

    def _mapping(self, node: yaml.Node, what: str, keys: tuple[str, ...] | None) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, f"{what} is keys and values, as {{{keys[0] if keys else PRODUCT}: ...}}")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail(key, f"a key of {what} is a word")
            if keys is not None and key.value not in keys:
                self._fail(key, f"{key.value!r} is not a key of {what}.{nearest(key.value, list(keys))}")
            if key.value == "<<":
                self._fail(key, "<< is not read here: write the conditions out")
            if key.value in found:
                self._fail(key, f"{key.value!r} is given twice")
            found[key.value] = value
        return found

    def _text(self, node: yaml.Node, what: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self._fail(node, f"{what} is a word, and not empty")
        return node.value.strip()

    def _number(self, node: yaml.Node, what: str) -> float:
        text = self._text(node, what)
        try:
            value = float(text)
        except ValueError:
            self._fail(node, f"{what}={text!r} is not a number")
        if not 0 <= value < float("inf"):
            self._fail(node, f"{what}={text}: must not be negative")
        return value
