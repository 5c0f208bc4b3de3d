"""A contact sheet of outfits: what was worn, and what was made of it by replacing pieces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from w2w.report.page import thumbnail, write_page


@dataclass(frozen=True)
class Piece:
    """One slot of an outfit: its crop (JPEG), where the crop comes from, and whether it was put in for another."""

    slot: str
    category: str
    crop: bytes
    crop_source: str
    replaced: bool


@dataclass(frozen=True)
class Worn:
    """An outfit as it was worn, and the modified ones."""

    outfit_id: str
    split: str
    pieces: tuple[Piece, ...]
    modified: tuple[tuple[Piece, ...], ...] = ()


def outfit_sheet(
    out: str, title: str, headline: Mapping[str, object], facts: Mapping[str, object], worn: Sequence[Worn]
) -> None:
    """Writes the page to ``out``. A crop that cannot be read has its place and says so."""

    def shown(pieces: Sequence[Piece]) -> list[dict]:
        return [
            {
                "image": thumbnail(p.crop),
                "text": p.slot if p.category == p.slot else f"{p.slot} ({p.category})",
                "crop_source": p.crop_source,
                "replaced": p.replaced,
            }
            for p in pieces
        ]

    outfits = [
        {"id": w.outfit_id, "split": w.split, "worn": shown(w.pieces), "modified": [shown(m) for m in w.modified]} for w in worn
    ]
    write_page(out, "mining/outfits/page.html.j2", title=title, headline=headline, facts=facts, outfits=outfits)
