"""One golden test a format: records as their documents and samples write them, read back to the exact boxes."""

import json

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
    rows = read(tmp_path / "train2020.json", "fashionpedia", images="/photos/train")
    assert list(rows) == ["fashionpedia/000000009813.jpg"]  # a photo without any record is left out
    row = rows["fashionpedia/000000009813.jpg"]
    assert objects(row) == [
        ((185, 890, 232, 935), "shoes", "shoe"),
        ((50, 186, 410, 698), "top", "sweater"),
        ((1, 2, 4, 6), "ignore", "jumpsuit"),
        ((100, 20, 150, 40), "ignore", "hat"),
    ]
    assert row[schema.IMAGE_URI] == "/photos/train/000000009813.jpg"
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
    row = read(tmp_path, "k-fashion", images="/photos")["k-fashion/레트로/IMG_5.jpg"]
    assert objects(row) == [
        ((240.5, 600, 540.5, 780), "bottom", "하의"),
        (tuple(np.float32([243.5, 478.32, 482.5, 800.32]).tolist()), "top", "상의"),
    ]
    assert row[schema.IMAGE_URI] == "/photos/레트로/IMG_5.jpg"
    assert row[schema.LABELLED] == ["bottom", "dress", "outer", "top"]
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
    (tmp_path / "images" / "val" / "b.png").touch()
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
    with pytest.raises(UsageError, match="category 'sock' is none of the wardrobe's"):
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
