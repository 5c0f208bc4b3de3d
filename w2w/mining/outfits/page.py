"""A contact sheet of outfits: those worn, and those made of them by replacing pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from w2w.report import cards
from w2w.report.page import thumbnail, write_page

_DRESS, _HALVES = "dress", ("top", "bottom")


@dataclass(frozen=True)
class Piece:
    """One slot of an outfit: its crop (JPEG), its source, and whether it was replaced."""

    slot: str
    category: str
    crop: bytes
    crop_source: str
    replaced: bool


@dataclass(frozen=True)
class Worn:
    """A worn outfit and its modified ones."""

    outfit_id: str
    split: str
    pieces: tuple[Piece, ...]
    modified: tuple[tuple[Piece, ...], ...] = ()


def outfit_sheet(
    out: str, title: str, headline: Mapping[str, object], facts: Mapping[str, object], worn: Sequence[Worn]
) -> None:
    """Writes the page to ``out``. An unreadable crop is marked as such; a dress, whose halves are crops of two slots, is drawn
    once."""
    outfits = [
        {"id": w.outfit_id, "split": w.split, "worn": _shown(w.pieces), "modified": [_shown(m) for m in w.modified]}
        for w in worn
    ]
    write_page(out, "mining/outfits/page.html.j2", title=title, headline=headline, facts=facts, outfits=outfits)


def _shown(pieces: Sequence[Piece]) -> dict:
    """Pictures, and a sentence about the source of the crops."""
    halves = {p.slot: p for p in pieces if p.category == _DRESS and p.slot in _HALVES}
    if len(halves) == len(_HALVES):
        top, bottom = (halves[slot] for slot in _HALVES)
        whole = Piece(_DRESS, _DRESS, cards.dress_of(top.crop, bottom.crop), top.crop_source, top.replaced or bottom.replaced)
        pieces = [whole, *(p for p in pieces if p.slot not in halves)]
    shown = []
    by_source: dict[str, list[str]] = {}
    for p in pieces:
        name = p.slot if p.category == p.slot else f"{p.slot} ({p.category})"
        shown.append(cards.Piece(p.slot, thumbnail(p.crop), f"{name}{', replaced' if p.replaced else ''}", p.replaced))
        by_source.setdefault(p.crop_source, []).append(name)
    said = "; ".join(f"by {source}: {', '.join(names)}" for source, names in by_source.items())
    return {"pieces": shown, "said": said, "replaced": " and ".join(p.slot for p in pieces if p.replaced)}
