"""The page of the release gate: what is shown of a night that fails, or on request, read from the store."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from w2w import schema, storage
from w2w.index.golden import PHOTO, Golden
from w2w.index.page import Answered, Responsible, release_page
from w2w.index.rules_release import Found, Release, Row
from w2w.index.seen import GOLDEN, SAMPLE, Query
from w2w.report.cards import CARD_PX, Card, product_card, ranked
from w2w.report.page import thumbnail
from w2w.table.current import newest_rows
from w2w.table.pending import values_by_key

ROWS_FILE = "rows.jsonl"  # beside the page: every row that is responsible
_SHOWN, _HITS, _CARDS = 16, 6, 12  # queries on the page, answers of each, and rows of a fault
_ON_CARDS = (schema.TITLE, schema.BRAND, schema.PRICE, schema.CURRENCY, schema.URL, schema.IMAGE_ID)


def write_sheet(
    release: Release,
    found: Found,
    before: Mapping[str, Mapping[str, Query]],
    now: Mapping[str, Mapping[str, Query]],
) -> str:
    """Writes the contact sheet, and all responsible rows beside it; returns its place."""
    pinned = {one.key: one for one in release.golden}
    both = [(key, kind, before[kind].get(key), now[kind].get(key)) for key in _worst(found, before, now) for kind in before]
    shown = [(key, kind, old, new) for key, kind, old, new in both if old or new][:_SHOWN]
    hits = [hit for *_, old, new in shown for q in (old, new) if q for hit in q.first(_HITS)]
    cards = {row.product_id for fault in found.faults for row in fault.rows[:_CARDS]}
    about = newest_rows(release.store, schema.PRODUCTS, cards | {hit[0] for hit in hits}, _ON_CARDS)
    asked = {q.image for *_, old, new in shown for q in (old, new) if q and q.image}
    of_cards = {image for product in cards if (image := about.get(product, {}).get(schema.IMAGE_ID))}
    pictures = values_by_key(release.store, schema.IMAGES, {hit[1] for hit in hits} | asked | of_cards, schema.BYTES)

    def answered(q: Query | None, other: Query | None, word: str, title: str) -> Answered:
        names = {hit[0] for hit in other.first(_HITS)} if other else set()
        listed = [] if q is None else [
            product_card(
                about.get(product, {}) | {schema.PRODUCT_ID: product},
                pictures.get(image),
                notes=(*ranked(rank, score), *([word] if product not in names else [])),
            )
            for rank, (product, image, score) in enumerate(q.first(_HITS), 1)
        ]  # fmt: skip
        return Answered(title, listed)

    queries = []
    for key, kind, old, new in shown:
        q = new or old
        assert q is not None, "it is of one night at least"
        one = pinned.get(key) if kind == GOLDEN else None
        photo = _photo(one) if one and one.kind == PHOTO else pictures.get(q.image or "")
        label = one.label + (f": {one.note}" if one.note else "") if one else q.category or ""
        name = q.product or (one.asked.rpartition("/")[2] if one else "")
        pair = answered(old, new, "gone", "Before"), answered(new, old, "new", "After")
        queries.append((name, label, thumbnail(photo, CARD_PX), pair))
    faults = [Responsible(f.said, [_card(row, about, pictures) for row in f.rows[:_CARDS]], len(f.rows)) for f in found.faults]
    figures = {name.replace("_", " "): value for name, value in found.figures.items()}
    release_page(release.page, faults, release.accept, figures, found.said, queries)
    rows = [{"fault": fault.kind} | asdict(row) for fault in found.faults for row in fault.rows]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    storage.write_bytes(storage.join(release.page.rpartition("/")[0], ROWS_FILE), lines.encode())
    return release.page


def _worst(found: Found, before: Mapping[str, Mapping[str, Query]], now: Mapping[str, Mapping[str, Query]]) -> Iterable[str]:
    """Keys of queries: those that failed, those that show rows that are responsible, those with most other answers."""
    bad = {row.product_id for fault in found.faults for row in fault.rows}
    changed: dict[str, tuple[int, int]] = {}
    for kind in (SAMPLE, GOLDEN):
        for key, q in now[kind].items():
            names = [hit[0] for hit in q.first(_HITS)]
            old = before[kind].get(key)
            other = len({hit[0] for hit in old.first(_HITS)} - set(names)) if old else 0
            if shows := len(bad & set(names)) + other:
                changed[key] = (-len(bad & set(names)), -shows)
    return dict.fromkeys([*found.worst, *sorted(changed, key=lambda key: (changed[key], key))])


def _photo(one: Golden) -> bytes | None:
    try:
        return storage.read_bytes(storage.source(one.asked))
    except FileNotFoundError:  # it was there when the run began
        return None


def _card(row: Row, about: Mapping[str, dict], pictures: Mapping[str, bytes]) -> Card:
    known = about.get(row.product_id, {}) | {schema.PRODUCT_ID: row.product_id}
    return product_card(known, pictures.get(known.get(schema.IMAGE_ID) or ""), notes=(row.why,))
