"""One golden test a format: records as their documents and samples write them, read back to the exact boxes."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.garments.annotations import RELATIVE, settle, split_of
from w2w.garments.formats import AnnotationsConfig, read_annotations
from w2w.garments.masks import from_rle, to_rle
from w2w.garments.taxonomy import VOCABULARIES, TaxonomyConfig
from w2w.wardrobe.shop import rle


def read(path, kind: str, **options) -> dict[str, dict]:
    table = read_annotations(AnnotationsConfig(str(path), kind, **options))
    return {row[schema.KEY]: row for row in table.to_pylist()}


def objects(row: dict) -> list[tuple]:
    """(box, class or "ignore", original label) of each object."""
    return [
        (tuple(o[schema.BOX]), "ignore" if o[schema.IGNORE] else o[schema.CATEGORY], o[schema.ORIGINAL_LABEL])
        for o in row[schema.OBJECTS]
    ]


def write(path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def categories(vocabulary: str, first: int = 0) -> list[dict]:
    names = [n for n in VOCABULARIES[vocabulary] if n != "scarf & tie"]
    return [{"id": i, "name": n, "supercategory": ""} for i, n in enumerate(names, first)]


def category_id(listed: list[dict], name: str) -> int:
    return next(c["id"] for c in listed if c["name"] == name)


def test_modanet(tmp_path):
    """Boxes and extremes of polygons of post 992824 in eBay/modanet, tiny/labels/modanet_snaps_test.json @312d4d9."""
    shoes = [[145, 569, 171, 583, 155, 596, 141, 572, 142, 568], [196, 549, 227, 544, 219, 519, 203, 559]]
    skirt = [[117, 236, 70, 335, 212, 296, 181, 405]]
    names = "bag,belt,boots,footwear,outer,dress,sunglasses,pants,top,shorts,skirt,headwear,scarf & tie".split(",")  # noqa: SIM905
    listed = [{"id": i, "name": name, "supercategory": "fashion"} for i, name in enumerate(names, 1)]  # as the README has them
    records = [
        {"id": 1, "category_id": 4, "bbox": [196, 519, 31, 40], "segmentation": shoes, "area": 1240},
        {"id": 2, "category_id": 11, "bbox": [70, 236, 142, 169], "segmentation": skirt, "area": 23998},
        {"id": 3, "category_id": 13, "bbox": [192, 30, 20, 28], "segmentation": [[192, 30, 212, 30, 200, 58]], "area": 1},
    ]
    images = [{"id": 992824, "width": 400, "height": 600, "file_name": "0992824.jpg", "license": 3}]
    file = {"info": {}, "images": images, "categories": listed, "licenses": [], "year": 2018, "type": "instances"}
    file["annotations"] = [r | {"image_id": 992824, "iscrowd": 0} for r in records]
    write(tmp_path / "modanet2018_instances_train.json", file)
    row = read(tmp_path / "modanet2018_instances_train.json", "modanet")["modanet/0992824.jpg"]
    assert objects(row) == [
        ((141, 568, 171, 596), "shoes", "footwear"),
        ((196, 519, 227, 559), "shoes", "footwear"),
        ((70, 236, 212, 405), "bottom", "skirt"),
    ]
    assert row[schema.IMAGE_URI] == str(tmp_path / "0992824.jpg")
    assert row[schema.LABELLED] == ["bag", "bottom", "dress", "hat", "outer", "shoes", "top"]
    del file["annotations"]
    write(tmp_path / "val.json", file)
    with pytest.raises(UsageError, match=r"val\.json: has no annotations"):
        read(tmp_path / "val.json", "modanet")


def test_fashionpedia(tmp_path):
    """A record in the form of instances_attributes_train2020.json; one without bbox as in the API's sample.json (id 16)."""
    listed = categories("fashionpedia")
    shoe = [[194, 890, 191, 902, 185, 920, 190, 934, 197, 935, 232, 914, 232, 892]]
    crowd = np.zeros((1000, 618), bool)
    crowd[20:40, 100:150] = True
    records = [
        {"category_id": category_id(listed, "shoe"), "segmentation": shoe, "area": 921.0, "attribute_ids": []},
        {"category_id": category_id(listed, "sweater"), "bbox": [50.0, 186.0, 360.0, 512.0], "attribute_ids": [147, 156]},
        {"category_id": category_id(listed, "jumpsuit"), "bbox": [1, 2, 3, 4]},
        {"category_id": category_id(listed, "sleeve"), "bbox": [1, 2, 3, 4]},
        {"category_id": category_id(listed, "hat"), "iscrowd": 1, "segmentation": to_rle(crowd)},
    ]
    image = {"id": 9813, "width": 618, "height": 1000, "file_name": "000000009813.jpg", "time_captured": "", "kaggle_id": "x"}
    file = {"images": [image, image | {"id": 1, "file_name": "none.jpg"}], "categories": listed, "attributes": []}
    file["annotations"] = [{"id": i, "image_id": 9813, "iscrowd": 0} | r for i, r in enumerate(records, 16)]
    write(tmp_path / "train2020.json", file)
    rows = read(tmp_path / "train2020.json", "fashionpedia", images=str(tmp_path))
    assert list(rows) == ["fashionpedia/000000009813.jpg"]  # a photo without any record is left out
    row = rows["fashionpedia/000000009813.jpg"]
    assert objects(row) == [
        ((185, 890, 232, 935), "shoes", "shoe"),
        ((50, 186, 410, 698), "top", "sweater"),
        ((1, 2, 4, 6), "ignore", "jumpsuit"),
        ((100, 20, 150, 40), "ignore", "hat"),
    ]
    assert row[schema.IMAGE_URI] == str(tmp_path / "000000009813.jpg")
    seed = read(tmp_path / "train2020.json", "fashionpedia", taxonomy=TaxonomyConfig(seed=True))
    assert [o[2] for o in objects(*seed.values())] == ["shoe", "hat"]


def test_fashionpedia_ids_are_not_trusted(tmp_path):
    """The API's sample has 48 categories whose ids are shifted: 24 is the shoe there, 23 in the data set."""
    listed = [{"id": 23, "name": "belt"}, {"id": 24, "name": "shoe"}]
    file = {"images": [{"id": 1, "file_name": "a.jpg"}], "categories": listed}
    file["annotations"] = [{"id": 1, "image_id": 1, "category_id": 24, "bbox": [0, 0, 5, 5]}]
    write(tmp_path / "sample.json", file)
    assert objects(*read(tmp_path / "sample.json", "fashionpedia").values())[0][1] == "shoes"


def test_deepfashion2(tmp_path):
    """The fields of the README, "Data Organization"; boxes are corners there."""
    item = {
        "category_name": "short sleeve top", "category_id": 1, "style": 1, "bounding_box": [92, 117, 286, 366],
        "landmarks": [182, 125, 2], "segmentation": [[92.0, 117.0, 286.0, 117.0, 200.0, 366.0]],
        "scale": 3, "occlusion": 2, "zoom_in": 1, "viewpoint": 2,
    }  # fmt: skip
    second = item | {"category_name": "trousers", "category_id": 8, "bounding_box": [100, 350, 260, 600], "style": 0}
    record = {"source": "user", "pair_id": 1, "item1": item, "item2": second}
    write(tmp_path / "train" / "annos" / "000001.json", record)
    write(tmp_path / "validation" / "annos" / "000001.json", {"source": "shop", "pair_id": 7, "item1": second})
    rows = read(tmp_path, "deepfashion2")
    row = rows["deepfashion2/train/000001"]
    assert objects(row) == [
        ((92, 117, 286, 366), "top", "short sleeve top"),
        ((100, 350, 260, 600), "bottom", "trousers"),
    ]
    assert row[schema.IMAGE_URI] == str(tmp_path / "train" / "image" / "000001.jpg")
    assert [r[schema.SPLIT] for r in rows.values()] == ["train", "test"]
    assert row[schema.LABELLED] == ["bottom", "dress", "outer", "top"]  # bags, hats and shoes have no boxes: not negatives
    write(tmp_path / "train" / "annos" / "000002.json", record | {"item1": item | {"bounding_box": [1, 2, 3]}})
    with pytest.raises(UsageError, match=r"000002\.json: item1: field 'bounding_box' is \[1, 2, 3\], not 4 numbers"):
        read(tmp_path, "deepfashion2")


def test_deepfashion2_products_are_not_split(tmp_path):
    item = {"category_name": "skirt", "bounding_box": [0, 0, 9, 9]}
    for i in range(60):
        write(tmp_path / "annos" / f"{i:06d}.json", {"source": "shop", "pair_id": i // 3, "item1": item})
    rows = read(tmp_path, "deepfashion2", test_share=0.5)
    splits = [rows[f"deepfashion2/{tmp_path.name}/{i:06d}"][schema.SPLIT] for i in range(60)]
    assert set(splits) == {"train", "test"}
    assert all(len(set(splits[i : i + 3])) == 1 for i in range(0, 60, 3))


def test_k_fashion(tmp_path):
    """AI Hub's form: a Korean label, rectangles by X좌표, Y좌표, 가로, 세로, and {} for what is not there."""
    detail = {
        "렉트좌표": {
            "아우터": [{}],
            "하의": [{"X좌표": 240.5, "Y좌표": 600, "가로": 300, "세로": 180}],
            "원피스": [{}],
            "상의": [{"X좌표": 243.5, "Y좌표": 478.32, "가로": 239, "세로": 322}],
        },
        "폴리곤좌표": {"상의": [{"X좌표1": 1, "Y좌표1": 2}]},
        "라벨링": {"스타일": [{"스타일": "레트로", "서브스타일": "스트리트"}], "상의": [{"카테고리": "티셔츠"}]},
    }
    record = {
        "이미지 정보": {"이미지 식별자": 5, "이미지 높이": 1200, "이미지 파일명": "IMG_5.jpg", "이미지 너비": 800},
        "데이터셋 정보": {"파일 번호": 5, "파일 이름": "IMG_5.jpg", "데이터셋 상세설명": detail},
    }
    write(tmp_path / "레트로" / "5.json", record)
    (tmp_path / "레트로" / "5.json").write_text("\ufeff" + json.dumps(record, ensure_ascii=False), encoding="utf-8")
    row = read(tmp_path, "k-fashion", images=str(tmp_path))["k-fashion/레트로/IMG_5.jpg"]
    assert objects(row) == [
        ((240.5, 600, 540.5, 780), "bottom", "하의"),
        (tuple(np.float32([243.5, 478.32, 482.5, 800.32]).tolist()), "top", "상의"),
    ]
    assert row[schema.IMAGE_URI] == str(tmp_path / "레트로" / "IMG_5.jpg")
    assert row[schema.LABELLED] == ["bottom", "dress", "outer", "top"]
    write(tmp_path / "레트로" / "5.json", record | {"이미지 정보": {"이미지 파일명": "../../IMG_5.jpg"}})
    with pytest.raises(UsageError, match=r"5\.json: 이미지 정보: '../../IMG_5.jpg' is not a file in"):
        read(tmp_path, "k-fashion")
    del detail["렉트좌표"]["상의"][0]["가로"]
    write(tmp_path / "레트로" / "5.json", record)
    with pytest.raises(UsageError, match=r"5\.json: 렉트좌표: 상의\[0\]: field '가로' is missing"):
        read(tmp_path, "k-fashion")


def test_coco(tmp_path):
    """cocodataset.org, "Data format"; a detector's own labels, one of them said by hand."""
    listed = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 31, "name": "handbag", "supercategory": "x"}]
    file = {"images": [{"id": 397133, "file_name": "000000397133.jpg", "width": 640, "height": 427}], "categories": listed}
    file["annotations"] = [
        {"id": 1, "image_id": 397133, "category_id": 31, "bbox": [217.62, 240.54, 38.99, 57.75], "iscrowd": 0},
        {"id": 2, "image_id": 397133, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
    ]
    write(tmp_path / "instances.json", file)
    row = read(tmp_path / "instances.json", "coco")["coco/000000397133.jpg"]
    assert objects(row)[0][0] == pytest.approx((217.62, 240.54, 256.61, 298.29), abs=1e-4)
    assert [o[1] for o in objects(row)] == ["bag"]  # a person is no garment
    assert row[schema.LABELLED] == ["bag"]
    for change, sentence in (
        ({"bbox": "no"}, r"instances\.json: annotations\[0\] \(id 1\): field 'bbox' is 'no', not list or tuple"),
        ({"image_id": 5}, r"annotations\[0\] \(id 1\): image_id 5 is not among the images"),
        ({"category_id": 5}, r"annotations\[0\] \(id 1\): category_id 5 is not among the categories"),
        ({"bbox": [0, 0, float("nan"), 1]}, r"not 4 numbers"),
    ):
        write(tmp_path / "bad" / "instances.json", file | {"annotations": [file["annotations"][0] | change]})
        with pytest.raises(UsageError, match=sentence):
            read(tmp_path / "bad" / "instances.json", "coco")
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(UsageError, match=r"cut\.json: not valid JSON"):
        read(tmp_path / "cut.json", "coco")


def test_yolo(tmp_path):
    """docs.ultralytics.com, "Detection datasets": class cx cy w h in shares; polygons in the segmentation form."""
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: bag, 1: top, 2: shoes}\n")
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
    (tmp_path / "images" / "train" / "a.jpg").touch()
    (tmp_path / "images" / "val" / "b.tiff").touch()
    (tmp_path / "images" / "val" / "without.png").touch()
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n\n2 0.1 0.2 0.3 0.4 0.2 0.9\n")
    (tmp_path / "labels" / "val" / "b.txt").write_text("")
    table = read_annotations(AnnotationsConfig(str(tmp_path), "yolo"))
    assert table.column(RELATIVE).to_pylist() == [True, True]
    assert table.column(schema.SPLIT).to_pylist() == ["train", "test"]
    sized = table.append_column(schema.WIDTH, pa.array([640, 10], pa.int32()))
    settled = settle(sized.append_column(schema.HEIGHT, pa.array([480, 10], pa.int32())), stage_version="v")
    assert objects(settled.to_pylist()[0]) == [
        ((240, 120, 400, 360), "top", "top"),
        (tuple(np.float32([64, 96, 192, 432]).tolist()), "shoes", "shoes"),
    ]
    assert objects(settled.to_pylist()[1]) == []
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n7 0 0 1 1\n")
    with pytest.raises(UsageError, match=r"a\.txt, line 2: class 7 is not among the names 0 to 2"):
        read(tmp_path, "yolo")


def test_street(real_images):
    table = read_annotations(AnnotationsConfig(str(real_images / "street" / "instances.json"), "ccp", source="street"))
    assert table.num_rows == 622  # of 623: one photo has no record
    assert sorted(set(table.column(schema.SPLIT).to_pylist())) == ["test", "train"]
    every = [o for row in table.to_pylist() for o in objects(row)]
    assert {"suit", "stockings"} <= {label for _, target, label in every if target == "ignore"}
    assert not any(label in ("hair", "skin") for _, _, label in every)


def test_split_is_the_same_for_ever_and_near_its_share():
    names = [f"photo {i}" for i in range(2000)]
    splits = split_of(names, 0.1)
    assert splits == split_of(names[::-1], 0.1)[::-1]
    assert 0.08 < splits.count("test") / 2000 < 0.12
    assert [split_of(["a", "b", "c", "d", "e", "f"], 0.5)] == [["test", "test", "test", "test", "test", "train"]]


def test_boxes_are_clipped_or_their_photo_rejected(tmp_path):
    listed = [{"id": 0, "name": "top"}]
    file = {"categories": listed, "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)]}
    found = [[-3, -2, 53, 42], [10, 10, 0, 5], [200, 0, 5, 5]]
    file["annotations"] = [{"id": i, "image_id": i, "category_id": 0, "bbox": b} for i, b in enumerate(found)]
    write(tmp_path / "x.json", file)
    table = read_annotations(AnnotationsConfig(str(tmp_path / "x.json")))
    size = pa.array([100] * 3, pa.int32())
    rows = settle(table.append_column(schema.WIDTH, size).append_column(schema.HEIGHT, size), stage_version="v").to_pylist()
    assert objects(rows[0]) == [((0, 0, 50, 40), "top", "top")]
    assert [r[schema.REJECT_CODE] for r in rows] == [None, "bad_box", "bad_box"]
    assert rows[2][schema.REJECT_DETAIL] == "'top' at (200, 0, 205, 5) in a photo of 100 x 100"


def test_mistakes(tmp_path):
    with pytest.raises(UsageError, match="Did you mean 'fashionpedia'"):
        AnnotationsConfig("x", "fashionpedea")
    with pytest.raises(UsageError, match="no such file or folder"):
        read(tmp_path / "nothing", "coco")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \*\.json there"):
        read(tmp_path / "empty", "deepfashion2")


def test_wardrobe(tmp_path):
    mask = np.zeros((60, 40), bool)
    mask[10:30, 5:25] = True
    item = {"product_id": "p", "category": "top", "box_xyxy": [5, 10, 25, 30], "visible_fraction": 0.9, "mask_rle": rle(mask)}
    hidden = item | {"category": "bottom", "visible_fraction": 0.05}
    post = {"post_id": "post-0", "image": "posts/0.jpg", "items": [item, hidden]}
    (tmp_path / "posts.jsonl").write_text(json.dumps(post) + "\n")
    rows = read(tmp_path, "wardrobe", split="train")
    row = rows["wardrobe/posts/0.jpg"]
    assert objects(row) == [((5, 10, 25, 30), "top", "top"), ((5, 10, 25, 30), "ignore", "bottom")]
    assert (from_rle(row[schema.OBJECTS][0][schema.MASK_RLE]) == mask).all()
    assert row[schema.IMAGE_URI] == str(tmp_path / "posts/0.jpg")
    assert len(row[schema.LABELLED]) == 7
    (tmp_path / "posts.jsonl").write_text(json.dumps(post) + "\n{")
    with pytest.raises(UsageError, match=r"posts.jsonl, line 2: not valid JSON"):
        read(tmp_path, "wardrobe")
    (tmp_path / "posts.jsonl").write_text(json.dumps(post | {"items": [item | {"category": "sock"}]}))
    with pytest.raises(UsageError, match="category 'sock' is not one of the wardrobe's"):
        read(tmp_path, "wardrobe")
    (tmp_path / "posts.jsonl").write_text(json.dumps(post | {"image": "../0.jpg"}))
    with pytest.raises(UsageError, match=r"posts.jsonl, line 1: '../0.jpg' is not a file in"):
        read(tmp_path, "wardrobe")


def test_masks_come_along_and_go_where_they_do_not_fit(tmp_path):
    file = {"categories": [{"id": 0, "name": "top"}], "images": [{"id": 0, "file_name": "0.jpg", "height": 60, "width": 40}]}
    polygon = {
        "id": 0,
        "image_id": 0,
        "category_id": 0,
        "bbox": [5, 10, 20, 20],
        "segmentation": [[5, 10, 25, 10, 25, 30, 5, 30]],
    }
    file["annotations"] = [polygon, polygon | {"segmentation": []}]
    write(tmp_path / "x.json", file)
    table = read_annotations(AnnotationsConfig(str(tmp_path / "x.json")))
    masks = [o[schema.MASK_RLE] for o in table.to_pylist()[0][schema.OBJECTS]]
    assert from_rle(masks[0]).sum() == 400
    assert masks[1] is None
    for height, there in ((60, True), (61, False)):
        sizes = [pa.array([v], pa.int32()) for v in (40, height)]
        rows = settle(table.append_column(schema.WIDTH, sizes[0]).append_column(schema.HEIGHT, sizes[1]), stage_version="v")
        assert (rows.to_pylist()[0][schema.OBJECTS][0][schema.MASK_RLE] is not None) == there


@pytest.mark.parametrize(("shoes", "seed", "kept"), [(2, True, 1), (3, True, 0), (3, False, 1)])
def test_the_seed_left_out_photos_of_three_shoes(shoes, seed, kept, tmp_path):
    file = {"categories": [{"id": 0, "name": "shoes"}], "images": [{"id": 0, "file_name": "0.jpg"}]}
    file["annotations"] = [{"id": i, "image_id": 0, "category_id": 0, "bbox": [9 * i, 0, 8, 8]} for i in range(shoes)]
    write(tmp_path / "x.json", file)
    assert len(read(tmp_path / "x.json", "coco", taxonomy=TaxonomyConfig(seed=seed))) == kept


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
    "categories": [{"id": 1, "name": "shirt"}],
    "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [10, 10, 20, 30]}],
}
SHIRT = TaxonomyConfig(classes={"shirt": "top"})


def coco_with(**changes: object) -> dict:
    """COCO with other fields in its first image, category or annotation."""
    part = {"height": "images", "width": "images", "file_name": "images", "name": "categories"}
    file = json.loads(json.dumps(COCO))
    for name, value in changes.items():
        file[part.get(name, "annotations")][0][name] = value
    return file


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[10, 10, 1e9, 10, 30, 40]], "a polygon with a point 1e+09 px away from its photo"),
        ([[1e8, 1e8, 1e8 + 5, 1e8, 1e8, 1e8 + 5]], "1e+08 px away"),
        ([[10, 10, float("nan"), 10, 30, 40]], "not 6 numbers"),
        ([[10, 10, float("inf"), 10, 30, 40]], "not 6 numbers"),
        ([[10, 10, True, 10, 30, 40]], "not 6 numbers"),
        ([[10, 10, 10**400, 10, 30, 40]], "not 6 numbers"),
        ([[0, 0, 5e6, 0, 0, 5e6]], "polygons whose outline is"),
        ([[0, 0, 6e4, 79] * 500], "polygons whose outline is"),
        ([[0, 0, 5, 0, 5, 5]] * 10_001, "10,001 polygons of one object"),
        ([10, 10, 30, 10, 30, 40], "neither polygons of 3 or more points nor run lengths"),
        ([[10, 10, 30, 10, 30, 40, 7]], "neither polygons"),
        ([{"size": [80, 100]}], "neither polygons"),
        ("here", "not list or dict"),
        ({"size": [80, 100], "counts": [5, 5]}, "run lengths sum to 10, the mask has 80 x 100 pixels"),
        ({"size": [80, 100], "counts": None}, "neither COCO's text nor a list of whole numbers"),
        ({"size": [80, 100], "counts": [4000.0, 4000.0]}, "neither COCO's text nor a list"),
        ({"size": [80, 100], "counts": [9000, -1000]}, "run lengths sum to"),
        ({"size": [80, 100], "counts": "o" * 100_000}, "a number of more than 40 bits"),
        ({"size": [80, 100], "counts": "\u3042"}, "ascii"),
        ({"size": [80], "counts": [8000]}, "without the mask's size"),
        ({"size": [-80, -100], "counts": [8000]}, "without the mask's size"),
        ({"size": None, "counts": None}, "without the mask's size"),
        ({"counts": [8000]}, "without the mask's size"),
        ({"size": [10**6, 10**6], "counts": [10**12]}, "a mask of 1000000 x 1000000 pixels is larger than any photo"),
        ({"size": [60, 100], "counts": [6000]}, "run lengths of 60 x 100 in a photo of 80 x 100"),
    ],
)
@pytest.mark.parametrize("kind", ["coco", "modanet"])
def test_segmentations_that_are_none(tmp_path, segmentation, words, kind):
    """Some of them ended the process, or took all memory: pycocotools checks nothing."""
    write(tmp_path / "x.json", coco_with(segmentation=segmentation, name="top" if kind == "modanet" else "shirt"))
    with pytest.raises(UsageError, match=r"x\.json: annotations\[0\] \(id 7\): (field ')?segmentation") as caught:
        read(tmp_path / "x.json", kind, taxonomy=SHIRT)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_photo_that_cannot_be_has_no_masks(tmp_path):
    write(tmp_path / "x.json", coco_with(width=10**6, height=10**6, segmentation=[[10, 10, 30, 10, 30, 40]]))
    with pytest.raises(UsageError, match=r"annotations\[0\] \(id 7\): segmentation: a mask of 1000000 x 1000000 pixels"):
        read(tmp_path / "x.json", "coco", taxonomy=SHIRT)
    write(tmp_path / "x.json", coco_with(width=0))
    with pytest.raises(UsageError, match=r"images\[0\]: height 80 and width 0 are not a photo's"):
        read(tmp_path / "x.json", "coco", taxonomy=SHIRT)


def test_polygons_that_stick_out_are_filled_inside(tmp_path):
    write(tmp_path / "x.json", coco_with(segmentation=[[-500, -500, 50, -500, 50, 900, -500, 900], [3, 3, 5, 5]]))
    ((row,),) = [read(tmp_path / "x.json", "coco", taxonomy=SHIRT).values()]
    mask = from_rle(row[schema.OBJECTS][0][schema.MASK_RLE])
    assert mask[:, :50].all()
    assert not mask[:, 51:].any()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ([], "expected an object with fields, found list"),
        (COCO | {"images": {}}, "field 'images' is {}, not list"),
        (COCO | {"images": [[]]}, "images[0]: expected an object with fields, found list"),
        (COCO | {"images": COCO["images"] * 2}, "images[1]: id 1 came before"),
        (COCO | {"categories": COCO["categories"] * 2}, "categories[1]: id 1 came before"),
        (COCO | {"annotations": []}, "it has no photo with annotations"),
        (coco_with(image_id="1"), "image_id '1' is not among the images"),
        (coco_with(image_id=True), "field 'image_id' is True, not int or str"),
        (coco_with(image_id=2), "image_id 2 is not among the images"),
        (coco_with(category_id=1.0), "field 'category_id' is 1.0, not int"),
        (coco_with(bbox=[1, 2, 3, False]), "field 'bbox' is [1, 2, 3, False], not 4 numbers"),
        (coco_with(bbox=[1, 2, 3, float("nan")]), "not 4 numbers"),
        (coco_with(file_name="\ud800.jpg"), "which holds half a character"),
        (coco_with(file_name="../x.jpg"), "x.json: images: '../x.jpg' is not a file in"),
        (coco_with(file_name="/etc/hostname"), "x.json: images: '/etc/hostname' is not a file in"),
        (coco_with(file_name="."), "x.json: images: '.' is not a file in"),
    ],
)
def test_what_a_record_is_not(tmp_path, file, words):
    (tmp_path / "x.json").write_text(json.dumps(file))
    with pytest.raises(UsageError) as caught:
        read(tmp_path / "x.json", "coco", taxonomy=SHIRT)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"images": [], "images": []}', "field 'images' is duplicated in one object"),
        (b"{" + b'"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"\xff\xfe{\0}\0", "not UTF-8 text"),
        (b"", "not valid JSON"),
    ],
)
def test_what_is_no_json(tmp_path, text, words):
    (tmp_path / "x.json").write_bytes(text)
    with pytest.raises(UsageError, match=rf"x\.json: .*{words}"):
        read(tmp_path / "x.json", "coco")
    (tmp_path / "posts.jsonl").write_bytes(text or b"x")
    with pytest.raises(UsageError, match=r"posts\.jsonl"):
        read(tmp_path, "wardrobe")


def test_a_mark_before_the_text_is_no_fault_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(COCO).encode())
    assert len(read(tmp_path / "x.json", "coco", taxonomy=SHIRT)) == 1
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(UsageError, match="not a plain file"):
        read(tmp_path / "pipe.json", "coco")


def yolo(root, label: bytes = b"0 0.5 0.5 0.4 0.4\n", described: bytes = b"train: train/images\nnames: [shirt]\n"):
    for folder in ("images", "labels"):
        (root / "train" / folder).mkdir(parents=True, exist_ok=True)
    (root / "train" / "images" / "a.jpg").touch()
    (root / "train" / "labels" / "a.txt").write_bytes(label)
    (root / "data.yaml").write_bytes(described)
    return root


def test_yolo_below_a_folder_called_images(tmp_path):
    root = yolo(tmp_path / "images" / "shop")
    (row,) = read(root, "yolo", taxonomy=SHIRT).values()
    assert (row[schema.KEY], row[schema.IMAGE_URI]) == ("yolo/train/images/a.jpg", str(root / "train/images/a.jpg"))
    (root / "train" / "images" / "more").symlink_to(root / "train" / "images")
    assert len(read(root, "yolo", taxonomy=SHIRT)) == 1, "a link to its own folder"
    (root / "train" / "labels" / "a.txt").unlink()
    with pytest.raises(UsageError, match=r"annotations\.path=.*shop: it has no photo with annotations"):
        read(root, "yolo", taxonomy=SHIRT)


# a list of nine lists of nine lists ...: two lines of it would be a gigabyte if they were written out
LAUGHS = b"a: &a [x, x, x, x, x, x, x, x, x]\n"
LAUGHS += b"".join(b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefghijkl")


@pytest.mark.parametrize(
    ("label", "described", "words"),
    [
        (b"0 0.5 0.5 0.4 0.4\xe9\n", b"", r"a\.txt: not UTF-8 text"),
        (b"0 0.5 0.5 nan 0.4\n", b"", r"a\.txt, line 1 is .*not 4 numbers"),
        (b"0 0.5 0.5 1e999 0.4\n", b"", r"a\.txt, line 1 is .*not 4 numbers"),
        (b"\xc2\xb2 0.5 0.5 0.4 0.4\n", b"", r"a\.txt, line 1: .*is not a class and numbers"),
        (b"1\n", b"names: []", r"a\.txt, line 1: class 1 is not among the names"),
        (b"", b"names: {a: shirt}", r"data\.yaml: names: 'a': 'shirt' is not a number and its name"),
        (b"", b"names: [[shirt]]", r"data\.yaml: names: 0: \['shirt'\] is not"),
        (b"", b"names: &a [*a]", r"data\.yaml: names: 0: "),
        (b"", b"names: " + b"[" * 5000, r"data\.yaml: cannot be read as YAML"),
        (b"", b"names: 2020-99-99", r"data\.yaml: cannot be read as YAML"),
        (b"", b"names: \xff", r"data\.yaml: not UTF-8 text"),
        (b"", b"- shirt", r"data\.yaml: expected an object with fields, found list"),
        (b"", LAUGHS + b"names: {0: *l}", r"data\.yaml: names: 0: \[\["),
    ],
)  # fmt: skip
def test_yolo_files_that_are_none(tmp_path, label, described, words):
    described = b"train: train/images\n" + described if described else b"train: train/images\nnames: [shirt]\n"
    root = yolo(tmp_path, label, described if b"- shirt" not in described else b"- shirt")
    with pytest.raises(UsageError, match=words) as caught:
        read(root, "yolo", taxonomy=SHIRT)
    assert len(str(caught.value)) < 500


def test_names_of_photos_that_are_not_text(tmp_path):
    root = yolo(tmp_path)
    with open(os.fsencode(root) + b"/train/images/\xbd\xc5.jpg", "wb"):
        pass
    with pytest.raises(UsageError, match=r"xbd.xc5\.jpg: its name is not UTF-8"):
        read(root, "yolo", taxonomy=SHIRT)


def test_a_class_of_a_file_is_one_of_ours(tmp_path):
    file = json.loads(json.dumps(COCO))
    file["categories"][0]["supercategory"] = "clothes"
    write(tmp_path / "x.json", file)
    with pytest.raises(UsageError, match=r"supercategory 'clothes' is not one of bag, bottom"):
        read(tmp_path / "x.json", "ccp")


def test_options_that_no_data_set_can_be_read_with(tmp_path):
    told = (
        ({"path": "x" * 300}, "no such file or folder"),
        ({"path": "s3://bucket/x.json"}, "annotations and photos are read from a disk: copy them"),
        ({"images": "x" * 300}, r"annotations\.images=x.*: no such folder"),
        ({"images": str(tmp_path / "nowhere")}, r"annotations\.images=.*: no such folder"),
        ({"images": "s3://bucket/x"}, "read from a disk"),
        ({"split": "val"}, r"annotations\.split=val: must be train or test"),
    )
    path = tmp_path / "a.json"
    path.write_text("{}")
    for options, sentence in told:
        with pytest.raises(UsageError, match=sentence):
            read_annotations(AnnotationsConfig(**{"path": str(path), **options}))


def test_photos_are_found_from_every_folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    write(tmp_path / "a.json", coco_of([[1, 1, 9, 1, 9, 9]]))
    monkeypatch.chdir(tmp_path)
    (row,) = read("a.json", "coco", images="photos", taxonomy=TaxonomyConfig(classes={"shirt": "top"})).values()
    assert row[schema.IMAGE_URI] == str(tmp_path / "photos" / "a.jpg")


@pytest.mark.parametrize("polygons", [[[]], [[1, 1, 2, 2]], [[500, 500, 510, 500, 510, 510]]])
def test_polygons_without_a_pixel_are_no_mask(tmp_path, polygons):
    write(tmp_path / "a.json", coco_of(polygons))
    (row,) = read(tmp_path / "a.json", "coco", taxonomy=TaxonomyConfig(classes={"shirt": "top"})).values()
    assert [(o[schema.BOX], o[schema.MASK_RLE]) for o in row[schema.OBJECTS]] == [([1.0, 2.0, 4.0, 6.0], None)]


def coco_of(polygons: list) -> dict:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "shirt"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": polygons}],
    }
