"""The page of style: each photo with the most similar looks, and under every look the products worn in it."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.errors import attempt
from w2w.images.decode import decode
from w2w.images.stage import cut
from w2w.models.reasons import Reason, Reasons
from w2w.report.cards import product_card, web_link
from w2w.report.page import thumbnail, write_page
from w2w.style.answers import Answer
from w2w.style.stage import Plan
from w2w.table.pending import lookup, values_by_key

_PHOTO_PX, _LOOK_PX, _PRODUCT_PX = 640, 320, 160


def style_report(
    out: str,
    plan: Plan,
    shown: Sequence[tuple[Answer, bytes | None]],
    num_photos: int,
    facts: dict[str, object],
    explained: int,
    reasons: Reasons,
) -> None:
    """Writes the page to ``out``: the answers shown, each with its photo, of ``num_photos`` in all."""
    looks = [look for answer, _ in shown for look in answer.looks]
    ids = {look.image_id for look in looks} | {p.image_id for look in looks for p in look.products if p.image_id}
    pictures = values_by_key(plan.store, schema.IMAGES, ids, schema.BYTES)
    persons = _persons(plan, sorted({look.image_id for look in looks})) if explained else {}
    photos = [
        {
            "name": answer.photo,
            "image": thumbnail(data, _PHOTO_PX),
            "says": answer.says,
            "reasons": _reasons(answer, data, pictures, persons, reasons, explained),
            "looks": [
                {
                    "image": thumbnail(pictures.get(look.image_id), _LOOK_PX),
                    "alt": f"look {look.rank}: post {look.post_id}",
                    "rank": look.rank,
                    "score": look.score,
                    "url": web_link(look.url),
                    "post_id": look.post_id,
                    "cards": [
                        product_card(vars(p), pictures.get(p.image_id or ""), notes=[p.how, p.category], side_px=_PRODUCT_PX)
                        for p in look.products
                    ],
                }
                for look in answer.looks
            ],
        }
        for answer, data in shown
    ]
    write_page(out, "style/page.html.j2", title="Looks alike", photos=photos, num_photos=num_photos, facts=facts)


def _persons(plan: Plan, images: Sequence[str]) -> dict[str, Sequence[float] | None]:
    """The person's box in these photos, as cropped for the index of looks."""
    if plan.detected is None:
        return {}
    columns = [schema.IMAGE_ID, schema.PERSON_BOX]
    rows = lookup(plan.store, schema.LOOKS, pa.array(images, pa.string()), columns, stage_version=plan.detected)
    return dict(zip(*(rows.column(c).to_pylist() for c in columns)))


def _reasons(
    answer: Answer,
    photo: bytes | None,
    pictures: dict[str, bytes],
    persons: dict[str, Sequence[float] | None],
    reasons: Reasons,
    explained: int,
) -> list[Reason]:
    """For the people, as they were compared."""
    nearest = answer.looks[:explained]
    if not nearest or photo is None:
        return []
    alike = [_person(pictures.get(look.image_id), persons.get(look.image_id)) for look in nearest]
    return reasons(_person(photo, answer.person_box), alike, [f"look {look.rank}" for look in nearest])


def _person(data: bytes | None, box: Sequence[float] | None) -> np.ndarray | None:
    image = attempt(decode, data) if data is not None else None
    if not isinstance(image, np.ndarray):
        return None
    return image if box is None else np.ascontiguousarray(cut(image, box))
