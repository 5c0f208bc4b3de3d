"""Which pixels are a garment's: disjoint, inside its box, along edges, and better than the box."""

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.garments import boxes, masks
from w2w.garments.detector import Detector, DetectorConfig
from w2w.garments.pixels import Pixels, garment_of, masks_of
from w2w.garments.stage import FOUND, Detect, cut_garments
from w2w.garments.taxonomy import CATEGORIES
from w2w.images.stage import PIXEL_HEIGHT, PIXEL_WIDTH, PIXELS

TOP, BOTTOM, BAG = (CATEGORIES.index(c) + 1 for c in ("top", "bottom", "bag"))


def drawn(height: int = 160, width: int = 96) -> tuple[np.ndarray, Pixels]:
    """A white top over black trousers on grey, and what a perfect head would say of it at every eighth pixel."""
    photo, classes = np.full((height, width, 3), 120, np.uint8), np.zeros((8, height // 8, width // 8), np.float32)
    photo[20:80, 20:76], photo[80:150, 20:76] = 255, 0
    middle_Y, middle_X = np.arange(4, height, 8), np.arange(4, width, 8)
    inside_X = (middle_X >= 20) & (middle_X < 76)
    classes[TOP] = ((middle_Y >= 20) & (middle_Y < 80))[:, None] & inside_X
    classes[BOTTOM] = ((middle_Y >= 80) & (middle_Y < 150))[:, None] & inside_X
    classes[0] = 1 - classes.sum(0)
    return photo, Pixels(classes, 1.0, CATEGORIES)


BOXES = np.array([[18, 18, 78, 90], [18, 70, 78, 152]], np.float32)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def test_pixels_of_overlapping_boxes_go_to_one_garment_along_the_edge():
    photo, pixels = drawn()
    owner = garment_of(pixels, photo, BOXES, ("top", "bottom"), np.array([0.5, 0.9]))
    truth = np.zeros((2, 160, 96), bool)
    truth[0, 20:80, 20:76], truth[1, 80:150, 20:76] = True, True
    assert [iou(owner == n, truth[n]) > 0.93 for n in range(2)] == [True, True]
    assert set(np.unique(owner)) == {-1, 0, 1}


def test_nothing_lies_outside_the_boxes_and_the_better_of_one_class_has_what_both_cover():
    photo, pixels = drawn()
    two = np.array([[18, 18, 78, 60], [18, 40, 78, 90]], np.float32)
    owner = garment_of(pixels, photo, two, ("top", "top"), np.array([0.4, 0.9]))
    assert (owner[62:] != 0).all()
    assert (owner[:38] != 1).all()
    assert (owner[44:58, 30:66] == 1).all()
    assert (owner[24:36, 30:66] == 0).all()
    assert (garment_of(pixels, photo, BOXES, ("bag", "bag"), np.array([0.4, 0.9])) == -1).all(), "no pixel is a bag's"


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
def test_a_photo_of_any_size_is_where_its_canvas_is(scale):
    photo, pixels = drawn()
    height, width = round(160 / scale), round(96 / scale)
    rows, columns = np.arange(height) * 160 // height, np.arange(width) * 96 // width
    sized = Pixels(pixels.classes_CHW, scale, CATEGORIES)
    owner = garment_of(sized, photo[rows][:, columns], BOXES / scale, ("top", "bottom"), np.array([0.5, 0.9]))
    assert owner.shape == (height, width)
    whole = garment_of(pixels, photo, BOXES, ("top", "bottom"), np.array([0.5, 0.9]))
    assert (owner == whole[rows][:, columns]).mean() > 0.93


def test_a_garment_with_hardly_a_pixel_of_its_own_has_no_mask():
    photo, pixels = drawn()
    names, scores, far = ("top", "bottom"), np.array([0.5, 0.9]), BOXES.copy()
    whole = garment_of(pixels, photo, BOXES, names, scores)
    for n, mask in enumerate(masks_of(pixels, photo, BOXES, names, scores)):
        assert (mask == (whole == n)).all()
    far[0] = (0, 0, 4, 4)
    assert masks_of(pixels, photo, far, names, scores)[0] is None
    assert masks_of(pixels, photo, np.empty((0, 4)), (), np.empty(0)) == []


def test_garments_are_cut_out_on_white(street):
    photos = [one.image for one in street[:4]]
    sizes = [(p.shape[1], p.shape[0]) for p in photos]
    columns = {
        schema.IMAGE_ID: pa.array([str(n) for n in range(len(photos))]),
        schema.WIDTH: pa.array([w for w, _ in sizes], pa.int32()),
        schema.HEIGHT: pa.array([h for _, h in sizes], pa.int32()),
        PIXELS: pa.array([p.tobytes() for p in photos], pa.large_binary()),
        PIXEL_WIDTH: pa.array([w for w, _ in sizes], pa.int32()),
        PIXEL_HEIGHT: pa.array([h for _, h in sizes], pa.int32()),
    }
    found = Detect(DetectorConfig())(pa.table(columns))
    for (width, height), listed in zip(sizes, found.column(FOUND).to_pylist()):
        own = [masks.from_rle(one[schema.MASK_RLE]) for one in listed if one[schema.MASK_RLE]]
        assert own
        assert {mask.shape for mask in own} == {(height, width)}
        assert np.sum(own, axis=0).max() == 1, "no pixel is two garments'"
    crops = {
        how: cut_garments(found, stage_version="v", crop_px=384, padding=0.0, on_white=how)["items"].to_pylist()
        for how in (False, True)
    }
    assert {one[schema.CROP_SOURCE] for listed in crops[False] for one in listed} == {"box"}
    assert "mask" in {one[schema.CROP_SOURCE] for listed in crops[True] for one in listed}
    plain, white = ([one[schema.CROP] for listed in crops[how] for one in listed] for how in (False, True))
    assert plain != white


def test_masks_of_rendered_photos_are_better_than_their_boxes(street):
    detector, found_iou, box_iou = Detector(DetectorConfig()), [], []
    for photo in street:
        (found,) = detector([photo.image])
        owner = garment_of(found.pixels, photo.image, found.boxes_N4, found.labels, found.scores_N)
        for item in (i for i in photo.items if i.visible_fraction >= 0.5):
            mask, near = item.mask, [n for n, c in enumerate(found.categories) if c == item.category]
            if near and (overlap := boxes.iou(np.array([item.box_xyxy], np.float32), found.boxes_N4[near])[0]).max() >= 0.5:
                whole = np.zeros(mask.shape, bool)
                x0, y0, x1, y1 = found.boxes_N4[near[int(overlap.argmax())]].round().astype(int)
                whole[y0:y1, x0:x1] = True
                found_iou.append(iou(owner == near[int(overlap.argmax())], mask))
                box_iou.append(iou(whole, mask))
    assert len(found_iou) >= 10
    assert np.mean(found_iou) > np.mean(box_iou) + 0.1
