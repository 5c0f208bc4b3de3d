"""A year of the synthetic shop, night by night, from a seed: what it sells, what its server says, and what goes wrong.

Kinds of garments come and go by week (``SEASONS``); products are new, sold again, withdrawn, changed; their pictures are
redrawn, replaced, broken and mended; on some nights the supplier fails (``FAULTS``). Nothing here knows w2w's tables.
"""

import csv
import io
import math
import random
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import simplejpeg

from w2w.wardrobe.garment import KINDS, Garment, generator, make_garment
from w2w.wardrobe.photo import thumbnail
from w2w.wardrobe.shop import title

PICTURE_PX = 64
# kind -> the week in which most of it is sold; all others are sold all year
SEASONS = {"tank top": 27, "shorts": 27, "summer dress": 25, "cap": 26, "heels": 22, "skirt": 23, "coat": 1, "boots": 2,
           "beanie": 1, "hoodie": 48, "cardigan": 45, "jacket": 41, "long sleeve": 46}  # fmt: skip
SALES = (1, 2, 26, 27)  # weeks
_LEAST_SEASON = 0.2
FEED_DOWN, NO_FEED, CUT_OFF, HALF, WEB_PAGE = "feed down", "no feed", "feed cut off", "half a feed", "a web page"
BAD_ROWS, PICTURES_DOWN, SOME_DOWN = "bad rows", "pictures down", "some pictures down"
FAULTS = (FEED_DOWN, BAD_ROWS, PICTURES_DOWN, SOME_DOWN, CUT_OFF, HALF, NO_FEED, WEB_PAGE)
REFUSED = (FEED_DOWN, CUT_OFF, HALF, NO_FEED, WEB_PAGE)  # nothing can be done with it
FAULT_EVERY = 6  # nights, about
CHANGES = ("new", "sold again", "withdrawn", "missing for a night", "price", "stock", "title", "category", "redrawn",
           "replaced", "further picture", "broken", "mended")  # fmt: skip
COLUMNS = ("product_id", "title", "price", "category", "availability", "image", "images")
_STOCKS = ("in stock", "in stock", "in stock", "out of stock")
_MOST_BROKEN = 2  # at once
_DOWN_OF = 90  # one in so many pictures, when some are down
_OFTEN = {"stock": 3, "title": 0.3, "category": 0.1, "redrawn": 0.7, "replaced": 0.4, "further picture": 0.5, "broken": 0.5}
_MOST_CHANGES = 6  # products that come, and that go, in a night


@dataclass(frozen=True)
class Ware:
    """A row of the feed; ``pictures``: names on the shop's server, the front first."""

    product_id: str
    kind: str
    title: str
    price: str
    category: str
    stock: str
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Night:
    """What the supplier's server answers in one. ``crash``: where the driver dies, as a share of a night's writes, and whether
    after that write; None: nowhere. ``feed``: None where there is none."""

    number: int
    changes: Counter
    fault: str
    crash: tuple[float, bool] | None
    feed: bytes | None
    listed: tuple[Ware, ...]
    files: dict[str, bytes]
    meant: dict[str, bytes]  # the same without broken pictures

    @property
    def is_refused(self) -> bool:
        return self.fault in REFUSED

    def is_down(self, name: str) -> bool:
        """Whether the server answers 503 for this picture."""
        return self.fault == PICTURES_DOWN or (self.fault == SOME_DOWN and zlib.crc32(name.encode()) % _DOWN_OF == 0)


@dataclass
class Year:
    """The shop as it is tonight; ``nights`` goes on. ``products``: about as many are sold."""

    products: int
    seed: int = 0
    fault_every: int = FAULT_EVERY
    wares: dict[str, Ware] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    gone: dict[str, tuple[Ware, int]] = field(default_factory=dict)  # withdrawn, and in which night
    _broken: dict[str, tuple[bytes, int]] = field(default_factory=dict)  # what was there before, and until when
    _away: dict[str, Ware] = field(default_factory=dict)  # left out of one night's feed
    _number: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(f"year {self.seed}")
        self._faults = Faults(random.Random(f"faults {self.seed}"), self.fault_every)
        self._crashes = random.Random(f"crashes {self.seed}")

    def nights(self, num: int) -> Iterator[Night]:
        for number in range(num):
            changes = self._change(number) if number else self._open()
            fault = self._faults.of(number)
            crash = (self._crashes.random(), self._crashes.random() < 0.5) if number % 3 == 2 else None
            listed = tuple(ware for name, ware in sorted(self.wares.items()) if name not in self._away)
            meant = self.files | {name: good for name, (good, _) in self._broken.items()}
            yield Night(number, changes, fault, crash, self._feed(listed, fault), listed, dict(self.files), meant)

    # what changes

    def _open(self) -> Counter:
        for kind, num in self._wanted(0).items():
            for _ in range(num):
                self._add(kind)
        return Counter(new=len(self.wares))

    def _change(self, number: int) -> Counter:
        rng, done = self._rng, Counter[str]()
        self._away = {}
        for name in [name for name, (_, until) in self._broken.items() if until <= number]:
            self.files[name] = self._broken.pop(name)[0]
            done["mended"] += 1
        self._season(number, done)
        some = sorted(self.wares)
        in_sale = number // 7 % 52 in SALES and number % 7 == 0
        often = _OFTEN | {"price": len(some) / 6 if in_sale else 2, "missing for a night": 0.3}
        for what, mean in often.items():
            for product_id in rng.sample(some, min(len(some) // 4, _poisson(rng, mean))):
                done[what] += self._edit(what, product_id, number)
        return done

    def _season(self, number: int, done: Counter) -> None:
        """Some kinds have too few products for the week, some too many; a product goes or comes besides."""
        rng, wanted = self._rng, self._wanted(number // 7)
        of_kind: dict[str, list[str]] = {kind: [] for kind in wanted}
        for product_id, ware in sorted(self.wares.items()):
            of_kind[ware.kind].append(product_id)
        lack = [kind for kind, num in wanted.items() for _ in range(num - len(of_kind[kind]))]
        over = [one for kind, num in wanted.items() for one in rng.sample(of_kind[kind], max(0, len(of_kind[kind]) - num))]
        lack += rng.choices(sorted(wanted), k=_poisson(rng, 0.5))
        over += rng.sample(sorted(self.wares), _poisson(rng, 0.5))
        for product_id in rng.sample(over, min(len(over), rng.randint(1, _MOST_CHANGES))):
            if product_id in self.wares:
                self.gone[product_id] = self.wares.pop(product_id), number
                done["withdrawn"] += 1
        for kind in rng.sample(lack, min(len(lack), rng.randint(1, _MOST_CHANGES))):
            before = [one for one, (ware, since) in sorted(self.gone.items()) if ware.kind == kind and number - since > 4]
            if before and rng.random() < 0.5:
                product_id = rng.choice(before)
                self.wares[product_id] = self.gone.pop(product_id)[0]
                done["sold again"] += 1
            else:
                self._add(kind)
                done["new"] += 1

    def _wanted(self, week: int) -> dict[str, int]:
        """How many products of each kind are sold in a week."""
        kinds = [kind for some in KINDS.values() for kind in some]
        return {kind: max(1, round(2 * self.products / len(kinds) * weight(kind, week))) for kind in kinds}

    def _add(self, kind: str) -> None:
        while (garment := make_garment(self.seed, self._number)).kind != kind:
            self._number += 1
        self._number += 1
        name = garment.product_id
        self.files[f"{name}.jpg"] = drawn(garment)
        pictures = [f"{name}.jpg"]
        if self._rng.random() < 0.3:
            self.files[f"{name}-2.jpg"] = drawn(garment, 2)
            pictures.append(f"{name}-2.jpg")
        price = f"{self._rng.randrange(9, 199)}.90"
        self.wares[name] = Ware(name, kind, title(garment), price, garment.category, self._rng.choice(_STOCKS), tuple(pictures))

    def _edit(self, what: str, product_id: str, number: int) -> int:
        """1 if it was done."""
        rng, ware = self._rng, self.wares[product_id]
        garment, version = make_garment(self.seed, int(product_id.rpartition("-")[2])), 1000 * number + rng.randrange(1000)
        front = ware.pictures[0]
        if what == "missing for a night":
            self._away[product_id] = ware
        elif what == "price":
            self.wares[product_id] = replace(ware, price=f"{rng.randrange(5, 199)}.50")
        elif what == "stock":
            self.wares[product_id] = replace(ware, stock=_STOCKS[-1] if ware.stock == _STOCKS[0] else _STOCKS[0])
        elif what == "title":
            self.wares[product_id] = replace(ware, title=f"{title(garment)} {number}")
        elif what == "category":  # to a wrong one, or back
            other = garment.category if ware.category != garment.category else rng.choice(sorted(KINDS))
            self.wares[product_id] = replace(ware, category=other)
        elif what == "redrawn":
            if front in self._broken:
                return 0
            self.files[front] = drawn(garment, version)
        elif what == "replaced":
            name = f"{product_id}-{number}.jpg"
            self.files[name] = drawn(garment, version)
            self.wares[product_id] = replace(ware, pictures=(name, *ware.pictures[1:]))
        elif what == "further picture":
            if len(ware.pictures) > 1:
                self.wares[product_id] = replace(ware, pictures=ware.pictures[:-1])
            else:
                name = f"{product_id}-more-{number}.jpg"
                self.files[name] = drawn(garment, version)
                self.wares[product_id] = replace(ware, pictures=(*ware.pictures, name))
        elif what == "broken":
            name = rng.choice(ware.pictures)
            if name in self._broken or len(self._broken) >= _MOST_BROKEN:
                return 0
            good = self.files[name]
            self._broken[name] = good, number + rng.randint(1, 4)
            bad = rng.choice((None, good[: len(good) // 3], b"<!doctype html><title>not here</title>"))
            if bad is None:
                del self.files[name]
            else:
                self.files[name] = bad
        return 1

    # what is said of it

    def _feed(self, listed: tuple[Ware, ...], fault: str) -> bytes | None:
        if fault in (FEED_DOWN, NO_FEED):
            return None
        if fault == WEB_PAGE:
            return b"<!doctype html><html><body>We will be back soon</body></html>"
        rows = [[w.product_id, w.title, w.price, w.category, w.stock, w.pictures[0], ",".join(w.pictures[1:])] for w in listed]
        if fault == HALF:
            rows = rows[: len(rows) // 2]
        if fault == BAD_ROWS:
            rows = [*spoilt(rows), rows[-1][:2] + ["1.00"] + rows[-1][3:], ["", *rows[0][1:]]]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        return text.getvalue().encode()


class Faults:
    """When the supplier fails, and how: each kind in turn, in an order of its own each time."""

    def __init__(self, rng: random.Random, every: int):
        self._rng, self._every = rng, every
        self._next, self._left = every, list[str]()

    def of(self, number: int) -> str:
        if number < self._next:
            return ""
        self._left = self._left or self._rng.sample(FAULTS, len(FAULTS))
        fault = self._left.pop()
        longer = fault == PICTURES_DOWN and self._rng.random() < 0.3
        if longer:
            self._left.append(fault)
        self._next = number + (1 if longer else self._rng.randint(self._every // 2, 3 * self._every // 2))
        return fault


def spoilt(rows: list[list[str]]) -> list[list[str]]:
    """Every hundredth price is no number."""
    return [[*row[:2], "ask us", *row[3:]] if n % 100 == 7 else row for n, row in enumerate(rows)]


def weight(kind: str, week: int) -> float:
    """From _LEAST_SEASON to 1: how much of a kind is sold in a week."""
    if kind not in SEASONS:
        return 0.6
    return max(_LEAST_SEASON, math.cos(2 * math.pi * (week - SEASONS[kind]) / 52))


def drawn(garment: Garment, version: int = 0) -> bytes:
    """Its picture; another ``version`` has other colours."""
    if version:
        red, green, blue = generator("version", garment.product_id, version).integers(0, 256, 3).tolist()
        garment = replace(garment, colour=(red, green, blue))
    return simplejpeg.encode_jpeg(np.ascontiguousarray(thumbnail(garment, PICTURE_PX)), quality=85)


def _poisson(rng: random.Random, mean: float) -> int:
    least, drawn, num = math.exp(-mean), rng.random(), 0
    while drawn > least:
        drawn, num = drawn * rng.random(), num + 1
    return num
