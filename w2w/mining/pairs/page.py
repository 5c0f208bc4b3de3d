"""The mining report: pairs by class, split and rule, why the other tags were rejected, and examples of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from w2w.garments.page import Seen, draw, legend_of
from w2w.report.cards import web_link
from w2w.report.page import data_uri, thumbnail, write_page

_PHOTO_PX = 320


@dataclass(frozen=True)
class Side:
    """One picture of a row: its caption, and the link to a product page, if any."""

    label: str
    image: bytes | None
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """An anchor beside its positive. ``facts``: words about the match; ``negatives``: nearest first, if there are any."""

    category: str
    split: str
    anchor: Side
    positive: Side
    facts: Sequence[str] = ()
    negatives: Sequence[Side] = ()
    url: str | None = None


@dataclass(frozen=True)
class Rejected:
    """A rejected tag: the photo with its detected garments, and the product if known."""

    detail: str
    photo: Seen | None
    product: Side | None
    url: str | None = None


@dataclass(frozen=True)
class Reason:
    """Why tags were rejected, what to do about it, how many, and examples."""

    code: str
    meaning: str
    advice: str
    count: int
    examples: Sequence[Rejected] = ()


@dataclass(frozen=True)
class Counted:
    """Numbers of pairs: by category (rows) and split (columns), and by rule."""

    table: dict[str, dict[str, int]] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)

    @property
    def splits(self) -> list[str]:
        order = {"train": 0, "val": 1, "test": 2}
        return sorted({s for row in self.table.values() for s in row}, key=lambda s: (order.get(s, 3), s))


def mining_report(
    out: str,
    headline: dict[str, str],
    facts: dict[str, object],
    counted: Counted,
    reasons: Sequence[Reason],
    pairs: Sequence[Pair],
    hardened: Sequence[Pair],
    colours: dict[str, str],
) -> None:
    """Writes the page to ``out``. ``colours``: box colour of each class."""
    most = max((sum(row.values()) for row in counted.table.values()), default=1)
    write_page(
        out,
        "mining/pairs/page.html.j2",
        title="Mined pairs",
        headline=headline,
        facts=facts,
        splits=counted.splits,
        classes=[(name, row, sum(row.values()), sum(row.values()) / most) for name, row in sorted(counted.table.items())],
        rules=counted.rules,
        reasons=[
            {
                "code": r.code,
                "meaning": r.meaning,
                "advice": r.advice,
                "count": r.count,
                "width": r.count / max(x.count for x in reasons),
                "examples": [_rejected(e, colours) for e in r.examples],
            }
            for r in reasons
        ],
        pairs=[_pair(p) for p in pairs],
        hardened=[_pair(p) for p in hardened],
    )


def _side(side: Side) -> dict:
    return {"label": side.label, "note": side.note, "image": thumbnail(side.image)}


def _pair(pair: Pair) -> dict:
    return {
        "category": pair.category,
        "split": pair.split,
        "facts": list(pair.facts),
        "anchor": _side(pair.anchor),
        "positive": _side(pair.positive),
        "negatives": [_side(n) for n in pair.negatives],
        "url": web_link(pair.url),
    }


def _rejected(example: Rejected, colours: dict[str, str]) -> dict:
    picture = draw(example.photo, colours, _PHOTO_PX) if example.photo else None
    return {
        "detail": example.detail,
        "photo": data_uri(picture) if picture else None,
        "legend": legend_of(example.photo, colours) if example.photo else [],
        "product": _side(example.product) if example.product else None,
        "url": web_link(example.url),
    }
