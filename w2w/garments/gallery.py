"""The page of detections and cut-outs: a sample of photos, histograms and rejects, read from the tables."""

from collections import Counter

import pyarrow as pa

from w2w import schema
from w2w.garments.masks import from_rle
from w2w.garments.page import Box, Histogram, Refused, Seen, garment_report
from w2w.table import delta
from w2w.table.pending import lookup

_STAGES = ("detect", "segment")


def write_gallery(
    store: str, detected: str | None, cut: str | None, num_shown: int, threshold: float, page: str | None
) -> dict[str, int]:
    """Draws the detections of stage version ``detected`` with at least this score, and the cut-outs of version ``cut``; returns
    the headline's counts.

    Without a ``page`` it only counts.
    """
    looks = _rows(store, schema.LOOKS, (schema.IMAGE_ID, schema.NUM_GARMENTS, schema.PERSON_BOX, schema.CROP_SOURCE), detected)
    columns = (schema.GARMENT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.ORIGINAL_LABEL, schema.SCORE, schema.BOX)
    garments = _rows(store, schema.GARMENTS, columns, detected)
    surer = [g for g in garments if g[schema.SCORE] >= threshold]
    people = _rows(store, schema.CUTOUTS, (schema.IMAGE_ID,), cut)
    ids = sorted({r[schema.IMAGE_ID] for r in looks} | {r[schema.IMAGE_ID] for r in people})[:num_shown]
    rejects = delta.read(
        store, schema.REJECTS, [schema.KEY, schema.STAGE, schema.STAGE_VERSION, schema.REJECT_CODE, schema.REJECT_DETAIL]
    ).to_pylist()
    rejects = [r for r in rejects if r[schema.STAGE] in _STAGES and r[schema.STAGE_VERSION] in (detected, cut)]
    counted = Counter((r[schema.STAGE], r[schema.REJECT_CODE]) for r in rejects)
    refused = sorted(rejects, key=lambda r: r[schema.KEY])[:num_shown]
    shown = pa.array(sorted({*ids, *(r[schema.KEY] for r in refused)}), pa.string())
    images = {
        r[schema.IMAGE_ID]: r[schema.BYTES] for r in _rows_with(store, schema.IMAGES, shown, (schema.IMAGE_ID, schema.BYTES))
    }
    wanted = (schema.IMAGE_ID, schema.BYTES, schema.MASK_RLE, schema.SLOTS)
    cutouts = _rows_with(store, schema.CUTOUTS, shown, wanted, cut) if cut else []
    drawn = set(ids)
    surest = pa.array([g[schema.GARMENT_ID] for g in surer if g[schema.IMAGE_ID] in drawn], pa.string())
    masks = _rows_with(store, schema.GARMENTS, surest, (schema.GARMENT_ID, schema.MASK_RLE), detected) if detected else []
    with_masks = {m[schema.GARMENT_ID]: m[schema.MASK_RLE] for m in masks}
    photos = _seen(ids, images, looks, surer, {c[schema.IMAGE_ID]: c for c in cutouts}, with_masks)
    classes = Counter(g[schema.CATEGORY] for g in surer)
    on_photo = Counter(g[schema.IMAGE_ID] for g in surer)
    sizes = Counter(str(on_photo[look[schema.IMAGE_ID]]) for look in looks)
    sources = Counter(look[schema.CROP_SOURCE] for look in looks)
    histograms = [Histogram("Garments by class", dict(classes)), Histogram("Garments in a photo", dict(sizes))]
    histograms.append(Histogram("Where a person's box comes from", dict(sources)))
    found = {
        "photos_seen": len(looks),
        "garments": len(surer),
        "below_threshold": len(garments) - len(surer),
        "cut_outs": len(people),
        "rejected": len(rejects),
    }
    headline = {name.replace("_", " "): f"{n:,}" for name, n in found.items()}
    facts = {"detector's stage version": detected or "none", "segmenter's stage version": cut or "none", "store": store}
    gallery = [
        Refused(r[schema.KEY], r[schema.STAGE], r[schema.REJECT_CODE], r[schema.REJECT_DETAIL], images.get(r[schema.KEY]))
        for r in refused
    ]
    counts = [(stage, code, n) for (stage, code), n in counted.most_common()]
    if page is not None:
        explained = (
            f"The numbers at the boxes are those of the list below each photo: garments with a score of {threshold:g} or more."
        )
        explained += (
            " A thin line is the outline of the pixels that the detector takes for the garment's. The person's box is dashed; "
            "what was cut out has a white outline, and all else is dimmed."
        )
        garment_report(page, "Garments", headline, facts, histograms, photos, gallery, counts, explained)
    return found


def _rows(store: str, table: schema.Table, columns: tuple[str, ...], version: str | None) -> list[dict]:
    return delta.read(store, table, list(columns), stage_version=version).to_pylist() if version else []


def _rows_with(
    store: str, table: schema.Table, keys: pa.Array, columns: tuple[str, ...], version: str | None = None
) -> list[dict]:
    only = {"stage_version": version} if version else {}
    return lookup(store, table, keys, list(columns), **only).to_pylist()


def _seen(
    ids: list[str], images: dict[str, bytes], looks: list[dict], garments: list[dict], cutouts: dict, masks: dict
) -> list[Seen]:
    """The photos to draw, in the order of ``ids``; ``masks``: run lengths of their garments."""
    by_id = {look[schema.IMAGE_ID]: look for look in looks}
    boxes: dict[str, list[Box]] = {}
    for g in garments:
        mask = masks.get(g[schema.GARMENT_ID])
        shape = from_rle(mask) if mask else None
        box = Box(g[schema.CATEGORY], g[schema.ORIGINAL_LABEL], g[schema.SCORE], tuple(g[schema.BOX]), shape)
        boxes.setdefault(g[schema.IMAGE_ID], []).append(box)
    photos = []
    for image_id in ids:
        look, cut = by_id.get(image_id, {}), cutouts.get(image_id)
        person = look.get(schema.PERSON_BOX)
        photos.append(
            Seen(
                image_id,
                images[image_id],
                boxes.get(image_id, []),
                tuple(person) if person else None,
                from_rle(cut[schema.MASK_RLE]) if cut else None,
                cut[schema.BYTES] if cut else None,
                [(f"{s[schema.SLOT]} ({s[schema.CROP_SOURCE]})", s[schema.CROP]) for s in cut[schema.SLOTS]] if cut else [],
                f"person: {look.get(schema.CROP_SOURCE, 'no detector')}",
            )
        )
    return photos
