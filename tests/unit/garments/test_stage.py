"""Stages over photos without Ray: crops, ids, guides, rejects; one row in, one row out."""

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg

from tests.unit.garments.models import save_detector
from w2w import schema
from w2w.errors import Reject, RejectCode
from w2w.garments import stage
from w2w.garments.boxes import PersonBox
from w2w.garments.detector import DetectorConfig
from w2w.garments.masked import Masked, Prompt
from w2w.garments.masks import MaskRules, from_rle
from w2w.garments.person import person_mask, person_prompts
from w2w.garments.segmenter import SegmenterConfig
from w2w.garments.stage import CUTOUT_GIVES, DETECT_GIVES, FOUND, GARMENT_GIVES, ITEMS, SEGMENT_GIVES, Detect, Segment
from w2w.images.decode import DecodeLimits
from w2w.images.stage import PHOTO_GIVES, photos_of, to_photos
from w2w.stage import Chain, Stage


def figure(height=400, width=300) -> np.ndarray:
    """A person of flat colours before a wall."""
    image = np.full((height, width, 3), (196, 205, 214), np.uint8)
    image[60:110, 130:170] = (224, 172, 140)
    image[110:230, 105:195] = (170, 30, 40)
    image[230:370, 115:185] = (30, 40, 90)
    return image


def rows_of(*images: np.ndarray) -> pa.Table:
    blobs = [simplejpeg.encode_jpeg(np.ascontiguousarray(i), 95) for i in images]
    return pa.table(
        {
            schema.IMAGE_ID: [f"{n:064d}" for n in range(len(images))],
            schema.BYTES: pa.array(blobs, pa.binary()),
            schema.WIDTH: pa.array([i.shape[1] for i in images], pa.int32()),
            schema.HEIGHT: pa.array([i.shape[0] for i in images], pa.int32()),
        }
    )


def photos(*images: np.ndarray, longest_px: int = 1600) -> pa.Table:
    rows = to_photos(rows_of(*images), limits=DecodeLimits(), longest_px=longest_px)
    return rows.drop_columns([schema.REJECT_CODE, schema.REJECT_DETAIL])


def test_photos_keep_their_shape_and_bad_ones_are_rejected():
    rows = rows_of(figure(), figure(900, 600))
    blobs = pa.array([rows.column(schema.BYTES)[0].as_py(), b"<html>"], pa.binary())
    bad = to_photos(rows.set_column(1, schema.BYTES, blobs), limits=DecodeLimits(), longest_px=200)
    assert bad.column(schema.REJECT_CODE).to_pylist() == [None, "not_an_image"]
    assert photos_of(bad.slice(0, 1))[0].shape == (200, 150, 3)
    shown = photos_of(photos(figure(), figure(900, 600), longest_px=600).slice(1))
    assert [p.shape for p in shown] == [(600, 400, 3)]


def found(*things: tuple[str, str, float, list[float]]) -> list[dict]:
    names = (schema.CATEGORY, schema.ORIGINAL_LABEL, schema.SCORE, schema.BOX)
    return [dict(zip(names, t)) for t in things]


TOP, BOTTOM = ("top", "shirt", 0.9, [105.0, 110, 195, 230]), ("bottom", "pants", 0.8, [115.0, 230, 185, 370])


def test_garments_and_looks():
    rows = photos(figure(), figure(), longest_px=200)  # half the size: boxes are in the photo's own
    rows = rows.append_column(
        FOUND, pa.array([found(TOP, BOTTOM, ("person", "person", 0.5, [90, 50, 210, 390])), []], stage.FOUND_TYPE)
    )
    cut = stage.cut_garments(rows, stage_version="v", crop_px=64, padding=0.0)
    assert set(GARMENT_GIVES.names) <= set(cut.column_names)
    first, second = cut.column(ITEMS).to_pylist()
    assert [(g[schema.CATEGORY], g[schema.BOX]) for g in first] == [("top", TOP[3]), ("bottom", BOTTOM[3])]
    shirt = simplejpeg.decode_jpeg(first[0][schema.CROP])
    assert shirt.shape == (60, 46, 3)
    assert np.abs(shirt[20:40, 10:30].astype(int) - (170, 30, 40)).max() < 12
    assert second == []
    looks = cut.select([schema.NUM_GARMENTS, schema.CROP_SOURCE, schema.PERSON_BOX]).to_pylist()
    assert [tuple(look.values()) for look in looks] == [(2, "person", [90, 50, 210, 390]), (0, "few_garments", None)]
    same = stage.cut_garments(rows, stage_version="v", crop_px=64, padding=0.0).column(ITEMS).to_pylist()[0]
    other = stage.cut_garments(rows, stage_version="w", crop_px=64, padding=0.0).column(ITEMS).to_pylist()[0]
    keys = [[g[schema.GARMENT_ID] for g in items] for items in (first, same, other)]
    assert keys[0] == keys[1]
    assert not set(keys[0]) & set(keys[2])


def test_a_chain_with_a_real_detector(tmp_path):
    save_detector(tmp_path, "rt_detr")
    config = DetectorConfig(str(tmp_path), threshold=0.0, max_boxes=3)
    chain = Chain(
        [
            Stage("decode", to_photos, (), PHOTO_GIVES, {"limits": DecodeLimits(), "longest_px": 160}),
            Stage("detect", Detect, (), DETECT_GIVES, {"config": config}),
            Stage("crop", stage.cut_garments, (), GARMENT_GIVES, {"stage_version": "v", "crop_px": 64, "padding": 0.1}),
        ],
        schema.IMAGE_ID,
        None,
        GARMENT_GIVES,
    )
    good, bad = chain(rows_of(figure(), figure(300, 200)))
    assert (good.num_rows, bad.num_rows) == (2, 0)
    items = good.column(ITEMS).to_pylist()
    assert all(0 < len(i) <= 3 for i in items)
    assert all(g[schema.BOX][2] <= 300 and g[schema.BOX][3] <= 400 for g in items[0])


def test_cutouts_with_and_without_a_guide():
    rows = photos(figure(), np.full((400, 300, 3), 90, np.uint8))
    guide = {
        FOUND: pa.array([found(TOP, BOTTOM), None], stage.FOUND_TYPE),
        schema.PERSON_BOX: pa.array([[105, 110, 195, 370], None], schema.XYXY),
        schema.CROP_SOURCE: pa.array(["garments", None]),
    }
    guided = rows
    for name, values in guide.items():
        guided = guided.append_column(name, values)
    segment = Segment(SegmenterConfig(), MaskRules())
    truth = (figure() != (196, 205, 214)).any(axis=2)
    for given, slots in ((rows, "ratios"), (guided, "boxes")):
        masked = segment(given)
        assert masked.column(schema.REJECT_CODE).to_pylist()[0] is None
        assert set(SEGMENT_GIVES.names) <= set(masked.column_names)
        cut = stage.cut_out(masked.slice(0, 1), stage_version="v", crop_px=96, feather_px=1.0)
        (row,) = cut.select(CUTOUT_GIVES.names).to_pylist()
        mask = from_rle(masked.column(schema.MASK_RLE)[0].as_py())
        assert (mask & truth).sum() / (mask | truth).sum() > 0.7  # of a drawing
        white = simplejpeg.decode_jpeg(row[schema.BYTES])
        assert white.shape == (400, 300, 3)
        assert white[:30].min() > 245
        assert [s[schema.SLOT] for s in row[schema.SLOTS]] == ["top", "bottom", "shoes"]
        assert row[schema.SLOTS][0][schema.CROP_SOURCE] == slots


class OneBox:
    """A segmenter that fills the boxes it is given, and is as sure as it is told."""

    needs_box = True

    def __init__(self, score: float = 0.95):
        self.score, self.asked = score, []

    def __call__(self, image, prompts):
        self.asked.append(list(prompts))
        result = []
        for prompt in prompts:
            mask = np.zeros(image.shape[:2], bool)
            x0, y0, x1, y1 = map(int, prompt.box)
            mask[y0:y1, x0:x1] = True
            result.append(Masked(mask, self.score, 0.99))
        return result


def test_person_prompts_and_the_union_of_what_is_worn():
    image = np.zeros((200, 100, 3), np.uint8)
    worn = np.array([[20, 20, 80, 90], [30, 90, 70, 150], [32, 152, 50, 160], [85, 170, 99, 199]])
    names = ["top", "bottom", "shoes", "bag"]
    person = PersonBox((20.0, 20.0, 80.0, 150.0), "person")
    prompts = person_prompts(person, worn, names, 100, 200, with_parts=True)
    assert prompts[0] == Prompt((15, 10, 85, 160), ((50, 55), (50, 120)))
    assert prompts[1:] == [Prompt((32, 152, 50, 160))]  # the bag is too far away
    model = OneBox()
    got = person_mask(model, image, worn, names, person, MaskRules())
    assert len(model.asked) == 1
    assert got.mask[155, 40]
    assert got.score == 0.95
    assert person_prompts(PersonBox(None, "small"), worn, names, 100, 200, True) == []
    for change, code in (({"score": 0.5}, RejectCode.BAD_MASK), ({}, RejectCode.NO_PERSON)):
        with pytest.raises(Reject) as e:
            person_mask(
                OneBox(**change), image, worn, names, person if change else PersonBox(None, "few_garments"), MaskRules()
            )
        assert e.value.code == code


def test_a_photo_that_breaks_the_segmenter_is_rejected_alone(monkeypatch):
    class Fragile(OneBox):
        def __call__(self, image, prompts):
            if image[0, 0, 0] > 250:
                raise RuntimeError("no pyramid for this")
            return super().__call__(image, prompts)

    monkeypatch.setattr(stage, "load_segmenter", lambda config: Fragile())
    white = np.full((400, 300, 3), 255, np.uint8)
    rows = photos(figure(), white, figure())
    guide = {
        FOUND: pa.array([found(TOP, BOTTOM)] * 3, stage.FOUND_TYPE),
        schema.PERSON_BOX: pa.array([[105, 110, 195, 370]] * 3, schema.XYXY),
        schema.CROP_SOURCE: pa.array(["garments"] * 3),
    }
    for name, values in guide.items():
        rows = rows.append_column(name, values)
    masked = Segment(SegmenterConfig(), MaskRules())(rows)
    assert masked.column(schema.REJECT_CODE).to_pylist() == [None, "model_failed", None]
