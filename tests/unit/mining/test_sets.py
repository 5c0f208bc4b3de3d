"""One golden test a public set: files as its documents describe them, read back to the exact records; then rows of tables."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from w2w import ids, schema
from w2w.errors import UsageError
from w2w.garments.stage import ITEMS, garment_id, to_jpeg
from w2w.images.decode import DecodeLimits, decode
from w2w.mining.sets import SetConfig, open_set
from w2w.mining.sets import rows as of
from w2w.mining.sets.records import Anchor, Item, Outfit, Photo, Question, Shop, columns, members
from w2w.mining.splits.shares import split_of


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text), encoding="utf-8")


def opened(path: Path, kind: str, **options):
    return open_set(SetConfig(kind, str(path), **options))


def street2shop(root: Path) -> None:
    write(root / "photos.txt", "".join(f"{i:010d},http://images.example/{i}.jpg\n" for i in (1, 2, 3, 4, 5)))
    box = {"width": 50, "top": 10, "height": 60, "left": 5}
    write(root / "meta/json/train_pairs_dresses.json", [{"photo": 1, "product": 70, "bbox": box}])
    write(root / "meta/json/test_pairs_dresses.json", [{"photo": 2, "product": 71, "bbox": box}])
    write(root / "meta/json/retrieval_dresses.json", [{"photo": 3, "product": 70}, {"photo": 4, "product": 70}])
    write(root / "meta/json/train_pairs_belts.json", [{"photo": 1, "product": 80, "bbox": box | {"left": 0}}] * 2)
    write(root / "meta/json/retrieval_belts.json", [{"photo": 5, "product": 80}, {"photo": 5, "product": 80}])


def test_street2shop(tmp_path):
    street2shop(tmp_path)
    found = opened(tmp_path, "street2shop")
    url = "http://images.example/{}.jpg".format
    assert list(found.shops()) == [
        Shop("belts/80/5", "80", url(5), "belts", None, "train"),
        Shop("dresses/70/3", "70", url(3), "dresses", "dress", "train"),
        Shop("dresses/70/4", "70", url(4), "dresses", "dress", "train"),
    ]
    assert list(found.photos()) == [
        Photo(
            "train/1",
            url(1),
            "train",
            (
                Anchor("80", ("belts/80/5",), "belts", None, (0, 10, 50, 70)),
                Anchor("70", ("dresses/70/3", "dresses/70/4"), "dresses", "dress", (5, 10, 55, 70)),
            ),
        ),
        Photo("test/2", url(2), "test", (Anchor("71", (), "dresses", "dress", (5, 10, 55, 70)),)),
    ]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/3.png").touch()
    here = [s.image_uri for s in opened(tmp_path, "street2shop", images=str(tmp_path / "mine")).shops()]
    assert here == [str(tmp_path / f"mine/{n}") for n in ("0000000005.jpg", "3.png", "0000000004.jpg")]  # two were never had


def test_street2shop_broken(tmp_path):
    street2shop(tmp_path)
    write(tmp_path / "meta/json/train_pairs_dresses.json", [{"photo": 1, "product": 70, "bbox": {"width": 5, "top": 1}}])
    with pytest.raises(UsageError, match=r"train_pairs_dresses\.json: \[0\]: bbox: field 'left' is missing"):
        list(opened(tmp_path, "street2shop").photos())
    write(tmp_path / "meta/json/retrieval_belts.json", [{"photo": 9, "product": 80}])
    with pytest.raises(UsageError, match=r"retrieval_belts\.json: \[0\]: photo 9 is not in .*photos\.txt"):
        list(opened(tmp_path, "street2shop").shops())
    write(tmp_path / "meta/json/retrieval_belts.json", [])
    write(tmp_path / "meta/json/retrieval_kilts.json", [])
    with pytest.raises(UsageError, match=r"retrieval_kilts\.json: 'kilts' is not a label of street2shop\..*skirts"):
        list(opened(tmp_path, "street2shop").shops())
    write(tmp_path / "photos.txt", "0000000001 http://x\n")
    (tmp_path / "meta/json/retrieval_kilts.json").unlink()
    with pytest.raises(UsageError, match=r"photos\.txt, line 1: '0000000001 http://x' is not like"):
        list(opened(tmp_path, "street2shop").shops())


IN_SHOP = {  # picture: item, status, clothes type
    "img/WOMEN/Dresses/id_00000002/02_1_front.jpg": ("id_00000002", "train", 3),
    "img/WOMEN/Dresses/id_00000002/02_2_side.jpg": ("id_00000002", "train", 3),
    "img/WOMEN/Dresses/id_00000002/04_3_back.jpg": ("id_00000002", "train", 3),
    "img/MEN/Denim/id_00000182/01_1_front.jpg": ("id_00000182", "query", 2),
    "img/MEN/Denim/id_00000182/01_2_side.jpg": ("id_00000182", "gallery", 2),
    "img/WOMEN/Rompers_Jumpsuits/id_00000183/01_1_front.jpg": ("id_00000183", "gallery", 3),
}


def in_shop(root: Path) -> None:
    lines = [f"{name}  {item} {status}" for name, (item, status, _) in IN_SHOP.items()]
    write(root / "Eval/list_eval_partition.txt", "\n".join([f"{len(lines)}", "image_name item_id evaluation_status", *lines]))
    header = "image_name clothes_type pose_type x_1 y_1 x_2 y_2"
    lines = [f"{name}\t{kind} 1 072 079 232 273" for name, (_, _, kind) in IN_SHOP.items()]
    write(root / "Anno/list_bbox_inshop.txt", "\n".join([f"{len(lines)}", header, *lines, ""]))
    (root / "Img/img").mkdir(parents=True)


def test_in_shop(tmp_path):
    in_shop(tmp_path)
    found = opened(tmp_path, "in-shop")
    front, side, back, query, gallery, romper = IN_SHOP
    box = (72, 79, 232, 273)

    def notes(status: str) -> tuple:
        return ("partition", status), ("box_xyxy", "72 79 232 273")

    def uri(name: str) -> str:
        return str(tmp_path / "Img" / name)

    assert list(found.shops()) == [
        Shop(front, "id_00000002", uri(front), "Dresses", "dress", "train", notes=notes("train")),
        Shop(back, "id_00000002", uri(back), "Dresses", "dress", "train", notes=notes("train")),  # the first of group 04
        Shop(gallery, "id_00000182", uri(gallery), "Denim", "bottom", "test", notes=notes("gallery")),
        Shop(romper, "id_00000183", uri(romper), "Rompers_Jumpsuits", None, "test", notes=notes("gallery")),
    ]
    assert list(found.photos()) == [
        Photo(side, uri(side), "train", (Anchor("id_00000002", (front, back), "Dresses", "dress", box),)),
        Photo(query, uri(query), "test", (Anchor("id_00000182", (gallery,), "Denim", "bottom", box),)),
    ]
    chosen = opened(tmp_path, "in-shop", classes={"Rompers_Jumpsuits": "dress"})
    assert [s.category for s in chosen.shops()][-1] == "dress"


def test_in_shop_broken(tmp_path):
    in_shop(tmp_path)
    file = tmp_path / "Eval/list_eval_partition.txt"
    good = file.read_text()
    for text, sentence in (
        (good.replace("6\n", "52712\n", 1), r"list_eval_partition\.txt: line 1 promises 52712 lines, and there are 6"),
        (good.replace(" query", " probe"), r"txt, line 6: evaluation_status 'probe' is not one of train, query, gallery"),
        (good.replace(" query", ""), r"txt, line 6: 2 values for 3 columns"),
        (good.replace("item_id", "item"), r"txt, line 2: no column 'item_id', only 'image_name item evaluation_status'"),
        (good.replace("Dresses", "Gowns"), r"txt, line 3: 'img/WOMEN/Gowns/.*' has no line in .*list_bbox_inshop\.txt"),
        ("image_name item_id\n", r"txt, line 1: 'image_name item_id' is not the number of lines"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=sentence):
            list(opened(tmp_path, "in-shop").shops())
    file.write_text(good)
    boxes = tmp_path / "Anno/list_bbox_inshop.txt"
    boxes.write_text(boxes.read_text().replace("072 079", "072 x"))
    with pytest.raises(UsageError, match=r"list_bbox_inshop\.txt, line 3: '072 x 232 273' is not a box of four numbers"):
        list(opened(tmp_path, "in-shop").shops())


C2S = "img/TOPS/T_Shirt/id_00000218"


def consumer_to_shop(root: Path) -> None:
    lines = [
        f"{C2S}/comsumer_01.jpg {C2S}/shop_01.jpg id_00000218 train",
        f"{C2S}/comsumer_01.jpg {C2S}/shop_02.jpg id_00000218 train",
        f"{C2S}/comsumer_02.jpg {C2S}/shop_01.jpg id_00000218 train",
        "img/TROUSERS/Summer_Wear/id_00000300/comsumer_01.jpg img/TROUSERS/Summer_Wear/id_00000300/shop_01.jpg id_00000300 val",
    ]
    header = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    write(root / "list_eval_partition.txt", "\n".join(["4", header, *lines]) + "\n")
    names = sorted({name for line in lines for name in line.split()[:2]})
    rows = [f"{n} {1 if 'TOPS' in n else 2} {1 if 'shop_' in n else 2} 10 20 {100 if 'shop_' in n else 90} 200" for n in names]
    header = "image_name clothes_type source_type x_1 y_1 x_2 y_2"
    write(root / "list_bbox_consumer2shop.txt", "\n".join([str(len(rows)), header, *rows]) + "\n")
    (root / "img").mkdir()


def test_consumer_to_shop(tmp_path):
    """The pairs are the list's lines and no others; the class of what is only summer wear is its clothes type's."""
    consumer_to_shop(tmp_path)
    found = opened(tmp_path, "consumer-to-shop")
    shops, photos = list(found.shops()), list(found.photos())
    assert shops[0] == Shop(
        f"{C2S}/shop_01.jpg", "id_00000218", f"{tmp_path}/{C2S}/shop_01.jpg", "T_Shirt", "top", "train",
        notes=(("box_xyxy", "10 20 100 200"),),
    )  # fmt: skip
    assert [s.name.rpartition("/")[2] for s in shops] == ["shop_01.jpg", "shop_02.jpg", "shop_01.jpg"]
    assert shops[2].category == "bottom"
    both = (f"{C2S}/shop_01.jpg", f"{C2S}/shop_02.jpg")
    assert photos[0] == Photo(
        f"{C2S}/comsumer_01.jpg", f"{tmp_path}/{C2S}/comsumer_01.jpg", "train",
        (Anchor("id_00000218", both, "T_Shirt", "top", (10, 20, 90, 200)),),
    )  # fmt: skip
    assert [a.shops for a in photos[1].anchors] == [both[:1]]
    assert photos[2].split == "val"
    file = tmp_path / "list_eval_partition.txt"
    file.write_text(file.read_text().replace("shop_02.jpg id_00000218 train", "shop_02.jpg id_00000218 test"))
    with pytest.raises(
        UsageError, match=r"line 4: '.*comsumer_01\.jpg' is id_00000218, test; on .*line 3 it is id_00000218, train"
    ):
        list(opened(tmp_path, "consumer-to-shop").photos())


def item(style: int, label: str = "trousers", box=(10, 20, 60, 90), **others) -> dict:
    return {
        "category_name": label, "category_id": 8, "style": style, "bounding_box": list(box), "landmarks": [1, 2, 2],
        "segmentation": [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]], "scale": 1, "occlusion": 1, "zoom_in": 1, "viewpoint": 2,
    } | others  # fmt: skip


def deepfashion2(root: Path) -> None:
    skirt = item(2, "skirt", (0, 0, 30, 40))
    write(root / "train/annos/000001.json", {"source": "user", "pair_id": 1, "item1": item(1), "item2": skirt})
    write(root / "train/annos/000002.json", {"source": "shop", "pair_id": 1, "item1": item(1), "item2": item(0)})
    write(root / "train/annos/000003.json", {"source": "shop", "pair_id": 1, "item1": item(1, box=(5, 5, 50, 50))})
    write(root / "train/annos/000004.json", {"source": "shop", "pair_id": 2, "item2": item(1)})  # another pair's style 1
    write(root / "train/annos/000005.json", {"source": "user", "pair_id": 2, "item1": item(0)})
    write(root / "validation/annos/000001.json", {"source": "user", "pair_id": 1, "item1": item(1)})


def test_deepfashion2(tmp_path):
    """One product = pair_id and style, and never style 0; boxes are corners here."""
    deepfashion2(tmp_path)
    found = opened(tmp_path, "deepfashion2")
    image = f"{tmp_path}/train/image/{{:06d}}.jpg".format
    box = (10, 20, 60, 90)
    assert list(found.shops()) == [
        Shop("train/000002/item1", "train/1/1", image(2), "trousers", "bottom", "train", box),
        Shop("train/000002/item2", None, image(2), "trousers", "bottom", "train", box),
        Shop("train/000003/item1", "train/1/1", image(3), "trousers", "bottom", "train", (5, 5, 50, 50)),
        Shop("train/000004/item2", "train/2/1", image(4), "trousers", "bottom", "train", box),
    ]
    first, second = found.photos()
    assert first == Photo(
        "train/000001", image(1), "train",
        (
            Anchor("train/1/1", ("train/000002/item1", "train/000003/item1"), "trousers", "bottom", box),
            Anchor("train/1/2", (), "skirt", "bottom", (0, 0, 30, 40)),
        ),
    )  # fmt: skip
    assert (second.name, second.split, second.anchors[0].shops) == ("validation/000001", "val", ())
    for change, sentence in (
        ({"source": "studio"}, r"000002\.json: source 'studio' is neither user nor shop"),
        ({"pair_id": "1"}, r"000002\.json: field 'pair_id' is '1', not int"),
        ({"item1": item("1")}, r"000002\.json: item1: field 'style' is '1', not int"),
        ({"item1": item(1, box=(1, 2, 3))}, r"000002\.json: item1: field 'bounding_box' is \[1, 2, 3\], not 4 numbers"),
        ({"item1": item(1, "kilt")}, r"000002\.json: item1: 'kilt' is not a label of deepfashion2"),
    ):
        write(tmp_path / "train/annos/000002.json", {"source": "shop", "pair_id": 1, "item1": item(1)} | change)
        with pytest.raises(UsageError, match=sentence):
            list(opened(tmp_path, "deepfashion2").shops())


def test_lookbook(tmp_path):
    for name in ("PID000001_CLEAN1_IID000000", "PID000001_CLEAN0_IID000001", "PID000002_CLEAN0_IID000002"):
        (tmp_path / f"{name}.jpg").touch()
    found = opened(tmp_path, "lookbook", val_share=0.0, test_share=0.0)
    product = "PID000001_CLEAN1_IID000000.jpg"
    assert list(found.shops()) == [Shop(product, "000001", str(tmp_path / product), "top", "top", "train")]
    worn = [(p.name, p.split, p.anchors) for p in found.photos()]
    assert worn == [
        ("PID000001_CLEAN0_IID000001.jpg", "train", (Anchor("000001", (product,), "top", "top", None),)),
        ("PID000002_CLEAN0_IID000002.jpg", "train", (Anchor("000002", (), "top", "top", None),)),
    ]
    (tmp_path / "PID1_CLEAN1_IID2.jpg").touch()
    with pytest.raises(UsageError, match=r"PID1_CLEAN1_IID2\.jpg: is not like PID000001_CLEAN1_IID000000\.jpg"):
        opened(tmp_path, "lookbook")


def test_split_by_hash_is_the_same_for_ever_and_near_its_shares():
    drawn = split_of(pa.array([f"lookbook/{i:06d}" for i in range(4000)]), 0.05, 0.1)
    assert 0.085 < drawn.count("test") / 4000 < 0.115
    assert 0.038 < drawn.count("val") / 4000 < 0.062
    assert drawn[:10] == ["train"] * 7 + ["test"] * 2 + ["train"]


def polyvore(root: Path, variant: str = "nondisjoint") -> None:
    kinds = {"a": "tops", "b": "bottoms", "c": "shoes", "d": "jewellery", "e": "shoes"}
    metadata = {
        i: {"url_name": f"item {i}", "description": "", "catgeories": "", "title": "", "related": "", "category_id": "3",
            "semantic_category": kind}
        for i, kind in kinds.items()
    }  # fmt: skip
    write(root / "polyvore_item_metadata.json", metadata)
    outfits = [("10", "abd"), ("11", "ace")]
    written = [{"set_id": s, "items": [{"item_id": i, "index": n} for n, i in enumerate(items, 1)]} for s, items in outfits]
    for split in ("train", "valid", "test"):
        write(root / variant / f"{split}.json", written if split == "test" else [])
    blank = {"question": ["10_1", "10_3"], "blank_position": 2, "answers": ["10_2", "11_2", "11_3", "11_1"]}
    write(root / variant / "fill_in_blank_test.json", [blank])
    write(root / variant / "compatibility_test.txt", "1 10_1 10_2 10_3\n0 10_1 11_3\n")
    (root / "images").mkdir(parents=True, exist_ok=True)


A, B, C, D, E = (
    Item(*one) for one in (("a", "tops", "top"), ("b", "bottoms", "bottom"), ("c", "shoes", "shoes"), ("d", "jewellery", None),
                           ("e", "shoes", "shoes"))
)  # fmt: skip


def test_polyvore(tmp_path):
    polyvore(tmp_path)
    found = opened(tmp_path, "polyvore")
    shops = list(found.shops())
    assert shops[0] == Shop("a", "a", str(tmp_path / "images/a.jpg"), "tops", "top", None, title="item a")
    assert [s.category for s in shops] == ["top", "bottom", "shoes", None, "shoes"]
    assert list(found.outfits()) == [Outfit("10", (A, B, D), "test"), Outfit("11", (A, C, E), "test")]
    blank, together, apart = found.questions()
    assert blank.items == (A, D)
    assert sorted(blank.answers, key=lambda i: i.shop) == [A, B, C, E]
    assert blank.answers[blank.right] == B
    assert together == Question("test/1", "compatibility", (A, B, D), (), 1, "test")
    assert apart == Question("test/2", "compatibility", (A, E), (), 0, "test")
    assert SetConfig("polyvore", variant="disjoint").name == "polyvore-disjoint"
    assert SetConfig("polyvore", variant="disjoint").catalog == "polyvore"
    with pytest.raises(UsageError, match="has no disjoint"):
        opened(tmp_path, "polyvore", variant="disjoint")


def test_the_right_answer_comes_first_in_the_file_and_anywhere_in_the_table(tmp_path):
    """answers[0] is right in every record of the published files: whoever answers 0 must be right once in four."""
    polyvore(tmp_path)
    blanks = [
        {"question": ["10_1", "10_3"] * n, "blank_position": 2, "answers": ["10_2", "11_2", "11_3", "11_1"]}
        for n in range(1, 201)
    ]
    write(tmp_path / "nondisjoint/fill_in_blank_test.json", blanks)
    right = [q.right for q in opened(tmp_path, "polyvore").questions() if q.kind == "fill_in_blank"]
    assert len(right) == 200
    assert all(35 <= right.count(place) <= 65 for place in range(4))


@pytest.mark.parametrize("name", ["../../../img/Dresses/secret/x.jpg", "/etc/Dresses/secret/x.jpg", "../../Dresses/../x.jpg"])
@pytest.mark.parametrize("kind", ["in-shop", "polyvore", "street2shop"])
def test_no_name_leads_out_of_the_set(tmp_path, kind, name):
    {"in-shop": in_shop, "polyvore": polyvore, "street2shop": street2shop}[kind](tmp_path)
    said = {"in-shop": "img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "polyvore": '"a"', "street2shop": "http"}[kind]
    for file in [f for f in tmp_path.rglob("*.*") if f.is_file()]:
        told = {"in-shop": name, "polyvore": f'"{name}"', "street2shop": name}[kind]
        file.write_text(file.read_text().replace(said, told))
    found = opened(tmp_path, kind)
    with pytest.raises(UsageError, match=r"is not a file in|is not like 0000000001,http"):
        [*found.shops(), *found.photos()]


def test_polyvore_broken(tmp_path):
    polyvore(tmp_path)
    blank = {"question": ["10_1"], "blank_position": 2, "answers": ["11_1", "11_2"]}
    file = tmp_path / "nondisjoint/fill_in_blank_test.json"
    for change, sentence in (
        ({"answers": ["10_9", "11_2"]}, r"test\.json: \[0\]: there is no outfit with an item '10_9' in this split"),
        ({"question": [10]}, r"test\.json: \[0\]: 10 is not like \{set_id\}_\{index\}"),
        ({"answers": ["10_2"]}, r"1 items and 1 answers are not a question"),
    ):
        write(file, [blank | change])
        with pytest.raises(UsageError, match=sentence):
            list(opened(tmp_path, "polyvore").questions())
    write(file, [blank])
    (question, *_) = opened(tmp_path, "polyvore").questions()
    assert (question.right, question.why[:44]) == (None, "0 answers are of the question's 1 sets (" + str(file)[:4])
    write(tmp_path / "nondisjoint/compatibility_test.txt", "1 10_1 10_2\nyes 10_1 10_2\n")
    with pytest.raises(UsageError, match=r"compatibility_test\.txt, line 2: 'yes 10_1 10_2' is not 0 or 1"):
        list(opened(tmp_path, "polyvore").questions())
    write(tmp_path / "nondisjoint/test.json", [{"set_id": "10", "items": [{"item_id": "z", "index": 1}]}])
    with pytest.raises(UsageError, match=r"test\.json: \[0\] \(set 10\): items\[0\]: item 'z' is not in .*metadata"):
        list(opened(tmp_path, "polyvore").outfits())


@pytest.mark.parametrize("value", [[], {}, [1], {"a": {"b": [1, "]"]}, "c": 2}, [{"x": 'é"}'}, 2.5, None]])
def test_members_are_those_of_the_whole_file(value, tmp_path):
    for text in (json.dumps(value), json.dumps(value, indent=3), "\ufeff " + json.dumps(value)):
        write(tmp_path / "x.json", text)
        found = list(members(tmp_path / "x.json"))
        assert (dict(found) if isinstance(value, dict) else [v for _, v in found]) == value


@pytest.mark.parametrize("text", ["", "{", "[1", "[1 2]", '{"a" 1}', '{"a": }', "[1,]", "[nope]", "7"])
def test_a_cut_file_is_named(text, tmp_path):
    write(tmp_path / "x.json", text)
    with pytest.raises(UsageError, match=r"x\.json: not valid JSON"):
        list(members(tmp_path / "x.json"))


def test_mistakes(tmp_path):
    with pytest.raises(UsageError, match=r"set\.format=deepfasion2: unknown\..*deepfashion2"):
        SetConfig("deepfasion2")
    with pytest.raises(UsageError, match=r"set\.format: name the data set: street2shop"):
        open_set(SetConfig())
    with pytest.raises(UsageError, match=r"set\.path=.*nothing: no such folder"):
        opened(tmp_path / "nothing", "lookbook")
    for name in ("x" * 300, "a\0b", "s3://bucket/set"):
        with pytest.raises(UsageError, match=r"set\.path=.*: no such folder"):
            opened(name, "lookbook")
        with pytest.raises(UsageError, match=r"set\.images=.*: no such folder"):
            opened(tmp_path, "lookbook", images=name)
    with pytest.raises(UsageError, match="'~nobody-of-this-name': "):
        opened("~nobody-of-this-name", "lookbook")
    with pytest.raises(UsageError, match=r"set\.source='My Set': letters"):
        SetConfig("lookbook", source="My Set")
    with pytest.raises(UsageError, match="shares that sum to at most 1"):
        SetConfig("lookbook", val_share=0.6, test_share=0.6)
    with pytest.raises(UsageError, match=r"it has no Eval/list_eval_partition\.txt or list_eval_partition\.txt"):
        opened(tmp_path, "in-shop")
    with pytest.raises(UsageError, match=r"no \*\.json there, nor in train/annos"):
        opened(tmp_path, "deepfashion2")


def test_numbers_of_any_length_are_sentences(tmp_path):
    long = "9" * 5000
    write(tmp_path / "list.txt", f"{long}\nimage_name\na.jpg\n")
    with pytest.raises(UsageError, match=r"list\.txt, line 1: '9{60}' is not the number of lines that follow"):
        list(columns(tmp_path / "list.txt", ("image_name",)))
    street2shop(tmp_path)
    write(tmp_path / "photos.txt", f"{long},http://images.example/1.jpg\n")
    with pytest.raises(UsageError, match=r"photos\.txt, line 1: '9+ is not like 0000000001,http"):
        list(opened(tmp_path, "street2shop").shops())


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (60, 40, 3), np.uint8)


def test_shops_become_products_cut_to_their_boxes():
    shops = [
        Shop("a/1", "p", "/x/a.jpg", "skirt", "bottom", "train", (10, 20, 30.4, 99), notes=(("partition", "gallery"),)),
        Shop("b", None, "/x/b.jpg", "belts", None, None, title="A belt"),
        Shop("c", "p", "/x/c.jpg", "skirt", "bottom", "train", (40, 0, 50, 10)),
    ]
    (rows,) = of.shop_rows(shops, "set", "v")
    first, second, _ = rows.to_pylist()
    assert first[schema.KEY] == f"set/a/1@{first[schema.ROW_DIGEST]}"
    assert dict(first[schema.ATTRIBUTES]) == {
        "product": "set/p", "label": "skirt", "source": "set", "split": "train", "partition": "gallery",
    }  # fmt: skip
    assert (second[schema.CATEGORY], second[schema.TITLE]) == ("etc", "A belt")
    assert dict(second[schema.ATTRIBUTES]) == {"label": "belts", "source": "set"}  # a product of its own
    assert next(of.shop_rows(shops, "set", "other")).column(schema.ROW_DIGEST)[0].as_py() != first[schema.ROW_DIGEST]
    jpeg = to_jpeg(picture())
    loaded = {
        schema.IMAGE_ID: [ids.image_id(jpeg)] * 3, schema.BYTES: [jpeg] * 3,
        schema.SOURCE_URI: rows.column(schema.IMAGE_URI).to_pylist(),
    }  # fmt: skip
    for name, values in loaded.items():
        rows = rows.append_column(name, pa.array(values, of.CUT_GIVES.field(name).type))
    first, second, third = of.cut_products(rows, limits=DecodeLimits()).to_pylist()
    assert decode(first[schema.BYTES]).shape == (40, 21, 3)
    assert first[schema.IMAGE_ID] == ids.image_id(first[schema.BYTES])
    assert first[schema.SOURCE_URI] == "/x/a.jpg#xyxy=10,20,30.4,60"
    assert (second[schema.BYTES], second[schema.IMAGE_ID]) == (jpeg, ids.image_id(jpeg))
    assert (third[schema.REJECT_CODE], third[schema.REJECT_DETAIL]) == ("bad_box", "(40,0,50,10) in a photo of 40 x 60")


def anchors() -> tuple[Anchor, ...]:
    return (
        Anchor("p", ("s1", "s2"), "skirt", "bottom", (10, 20, 30, 99)),
        Anchor("q", (), "vest", "top", None),
        Anchor("r", ("s3",), "belts", None, (0, 0, 9, 9)),
        Anchor("p", ("s1",), "skirt", "bottom", (50, 0, 60, 9)),
    )


def test_photos_become_posts_and_garments():
    (rows,) = of.photo_rows([Photo("1", "/x/1.jpg", "val", anchors())], "set", "v")
    (post,) = rows.to_pylist()
    assert post[schema.PRODUCT_IDS] == ["set/s1", "set/s2", "set/s3"]
    jpeg = to_jpeg(picture())
    image_id = ids.image_id(jpeg)
    rows = rows.append_column(schema.BYTES, pa.array([jpeg], pa.binary())).append_column(schema.IMAGE_ID, pa.array([image_id]))
    cut = of.cut_anchors(rows, stage_version="v", crop_px=384, limits=DecodeLimits())
    assert cut.schema.field(ITEMS).type == of.ANCHOR_GIVES.field(ITEMS).type
    skirt, vest = cut.to_pylist()[0][ITEMS]  # the belt is no class, the last box is outside
    assert skirt[schema.GARMENT_ID] == garment_id(image_id, "bottom", (10, 20, 30, 99), "v")
    assert (skirt[schema.BOX], skirt[schema.CROP_SOURCE]) == ([10, 20, 30, 60], "box")
    assert decode(skirt[schema.CROP]).shape == (40, 20, 3)
    assert (vest[schema.BOX], vest[schema.CROP_SOURCE]) == ([0, 0, 40, 60], "whole")


def test_pairs_and_why_there_is_none():
    garment = of.anchor_id("image", "bottom", (10, 20, 30, 99), "v")
    vest = of.anchor_id("image", "top", None, "v")
    known = of.Known({"set/s1": "i1", "set/s3": "i3"}, {"set/1": "image"}, {garment, vest})
    photos = [Photo("1", "u", "val", anchors()), Photo("2", "u", "val", anchors()[:1])]
    found = list(of.pairs(photos, known, "set", "set-x", "v"))
    assert found[0] == {
        "pair_id": ids.digest("set-x", garment, "set/p", "i1", length=32), "garment_id": garment, "anchor_image_id": "image",
        "post_id": "set/1", "product_id": "set/p", "image_id": "i1", "category": "bottom", "score": 1.0, "similarity": None,
        "rule": "annotated", "split": "val", "source": "set-x",
    }  # fmt: skip
    assert [(key, r.code.value) for key, r in found[1:]] == [
        ("set/1#0 set/s2", "no_photo"),
        ("set/1#1 set/q", "unknown_product"),
        ("set/1#2 set/s3", "no_category"),
        ("set/1#3 set/s1", "bad_box"),
        ("set/2#0 set/s1", "no_photo"),
        ("set/2#0 set/s2", "no_photo"),
    ]


def test_rows_are_gathered_once():
    row = dict.fromkeys(schema.OUTFITS.schema.names) | {"split": "test", "source": "s", "items": [], "replaced": []}
    found = [row | {"outfit_id": i} for i in "abacb"]
    batches = list(of.gathered(schema.OUTFITS, iter(found), batch_rows=2))
    assert [i for rows, _ in batches for i in rows.column("outfit_id").to_pylist()] == ["a", "b", "c"]
    assert [(key, r.code.value) for _, bad in batches for key, r in bad] == [("a", "duplicate_key"), ("b", "duplicate_key")]


def test_an_outfit_or_question_is_whole_or_not_there():
    known = of.Known({f"p/{i}": f"image {i}" for i in "abc"}, {}, set())
    good, bad = of.outfits([Outfit("1", (A, B), "train"), Outfit("2", (A, D), "train")], known, "p", "p-x")
    assert good == {
        "outfit_id": "p-x/1", "modified_of": None, "replaced": [], "split": "train", "source": "p-x",
        "items": [
            {"slot": "tops", "item_id": "image a", "image_id": "image a", "category": "top"},
            {"slot": "bottoms", "item_id": "image b", "image_id": "image b", "category": "bottom"},
        ],
    }  # fmt: skip
    assert (bad[0], bad[1].code.value, bad[1].detail) == ("p-x/2", "no_photo", "the picture of item d could not be loaded")
    asked = [
        Question("test/0", "fill_in_blank", (A,), (C, B), 1, "test"),
        Question("test/1", "fill_in_blank", (A,), (C, E), 1, "test"),
        Question("test/2", "fill_in_blank", (A,), (C, B), None, "test", "two are right"),
    ]
    good, *bad = of.questions(asked, known, "p", "p-x")
    assert (good["question_id"], good["right"]) == ("p-x/fill_in_blank/test/0", 1)
    assert [i["item_id"] for i in good["answers"]] == ["image c", "image b"]
    assert [(key, r.code.value) for key, r in bad] == [
        ("p-x/fill_in_blank/test/1", "no_photo"), ("p-x/fill_in_blank/test/2", "ambiguous"),
    ]  # fmt: skip


def in_shop_lines(root: Path, *more: str) -> None:
    """IN_SHOP with more lines in its list."""
    in_shop(root)
    file = root / "Eval/list_eval_partition.txt"
    lines = [*file.read_text().splitlines()[2:], *more]
    file.write_text("\n".join([str(len(lines)), "image_name item_id evaluation_status", *lines]))


def test_a_picture_of_two_lines_is_what_its_first_line_says(tmp_path):
    front, side, _, query, gallery, _ = IN_SHOP
    in_shop_lines(
        tmp_path,
        f"{gallery} id_00000182 gallery",  # a line twice
        f"{side} id_00000002 gallery",  # a photo of train is also in the gallery
        f"{gallery} id_00000999 gallery",  # a picture of two items
        f"{query} id_00000999 query",
    )
    found = opened(tmp_path, "in-shop")
    shops, photos = list(found.shops()), list(found.photos())
    assert [(s.name, s.product) for s in shops if s.name == gallery] == [
        (gallery, "id_00000182"), (gallery, "id_00000182"), (gallery, "id_00000999"),
    ]  # fmt: skip
    assert [p.name for p in photos] == [side, query, side, query]
    assert front in {s.name for s in shops}
    assert [p.anchors[0].shops for p in photos if p.name == query] == [(gallery,), ()], "the other item has no picture left"
    known = of.Known({f"set/{s.name}": s.name for s in shops}, {f"set/{p.name}": p.name for p in photos}, set())
    of_pairs = list(of.pairs(photos, known, "set", "set", "v"))
    batches = list(of.gathered(schema.PAIRS, iter(of_pairs)))
    assert [(key, r.code.value) for _, bad in batches for key, r in bad if r.code == "duplicate_key"] == [
        (f"set/{side}#0 set/{name}#2", "duplicate_key") for name in (front, list(IN_SHOP)[2])
    ] + [(f"set/{query}#0 set/id_00000999", "duplicate_key")]


def test_rows_of_one_id_are_one_row_and_rejects_with_keys_of_their_own(tmp_path):
    _, side, _, _, gallery, _ = IN_SHOP
    in_shop_lines(tmp_path, f"{gallery} id_00000182 gallery", f"{gallery} id_00000999 gallery", f"{side} id_00000009 query")
    found = opened(tmp_path, "in-shop")
    for rows, records, column in (
        (of.shop_rows, found.shops, schema.PRODUCT_ID),
        (of.photo_rows, found.photos, schema.POST_ID),
    ):
        plain = [row for t in rows(records(), "set", "v", batch_rows=2) for row in t.to_pylist()]
        marked = [row for t in of.once(column, rows(records(), "set", "v", batch_rows=2)) for row in t.to_pylist()]
        good = [row for row in marked if row[schema.REJECT_CODE] is None]
        assert [row[column] for row in good] == list(dict.fromkeys(row[column] for row in plain))
        assert len({row[schema.KEY] for row in marked}) == len(plain), "no two keys are the same"
        assert {row[schema.KEY] for row in good} <= {row[schema.KEY] for row in plain}
        assert not {row[schema.KEY] for row in marked if row[schema.REJECT_CODE]} & {row[schema.KEY] for row in plain}
        details = [row[schema.REJECT_DETAIL] for row in marked if row[schema.REJECT_CODE] == "duplicate_key"]
        assert len(details) == len(plain) - len(good) > 0
        if column == schema.PRODUCT_ID:
            assert details[-1] == f"'set/{gallery}' came before; here it is a picture of 'set/id_00000999'"


def test_a_picture_of_consumer_to_shop_with_two_items_is_told(tmp_path):
    consumer_to_shop(tmp_path)
    file = tmp_path / "list_eval_partition.txt"
    _, header, *lines = file.read_text().splitlines()
    item, shop, other = "id_00000218", f"{C2S}/shop_01.jpg", f"{C2S}/comsumer_02.jpg"
    lines[2] = f"{other} {shop} {item}9 train"
    file.write_text("\n".join([str(len(lines)), header, *lines]))
    shops = [s for s in opened(tmp_path, "consumer-to-shop").shops() if s.name == shop]
    assert [s.product for s in shops] == [item, f"{item}9"]


@pytest.mark.parametrize("box", ["nan nan nan nan", "1 2 inf 4", "1 2 3 1e300"])
def test_boxes_of_lists_are_finite(tmp_path, box):
    in_shop(tmp_path)
    file = tmp_path / "Anno/list_bbox_inshop.txt"
    file.write_text(file.read_text().replace("072 079 232 273", box, 1))
    with pytest.raises(UsageError, match=r"list_bbox_inshop\.txt, line 3: the box is .*, not 4 numbers"):
        list(opened(tmp_path, "in-shop").shops())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"source": "user", "pair_id": 1, "item\u00b2": {}}', r"000001\.json: field 'item.' is not like item1, item2"),
        ('{"source": "user", "pair_id": 1, "item01": {}}', r"field 'item01' is not like item1, item2"),
        ('{"source": "user", "pair_id": 1, "item1": {}, "item1": {}}', r"field 'item1' is duplicated in one object"),
        ('{"source": "user", "pair_id": ' + "[" * 100_000, r"000001\.json: not valid JSON: nested too deeply"),
        ("[]", "expected an object with fields, found list"),
    ],
)
def test_deepfashion2_files_that_are_none(tmp_path, text, words):
    write(tmp_path / "train/annos/000001.json", text)
    with pytest.raises(UsageError, match=words):
        list(opened(tmp_path, "deepfashion2").photos())


def test_polyvore_repeats_itself(tmp_path):
    polyvore(tmp_path)
    file = tmp_path / "polyvore_item_metadata.json"
    again = json.dumps({"semantic_category": "shoes", "title": "again"})
    file.write_text(file.read_text().rstrip("} \n") + '}, "a": ' + again + "}")
    write(
        tmp_path / "nondisjoint/train.json",
        [
            {"set_id": "20", "items": [{"item_id": i, "index": n} for i, n in (("a", 1), ("b", 2), ("c", 2))]},
            {"set_id": "21", "items": [{"item_id": "a", "index": 1}]},
            {"set_id": "22", "items": []},
            {"set_id": "23", "items": [{"item_id": "a", "index": 1}, {"item_id": "a", "index": 2}]},
            {"set_id": "24", "items": [{"item_id": "a", "index": 1}, {"item_id": "b", "index": 2}]},
        ],
    )
    write(tmp_path / "nondisjoint/compatibility_train.txt", "1 20_1 20_2\n1 24_1 24_2\n")
    found = opened(tmp_path, "polyvore")
    assert [s.name for s in found.shops()] == ["a", "b", "c", "d", "e", "a"], "the second is rejected where they become rows"
    known = of.Known({f"p/{i}": f"image {i}" for i in "abcde"}, {}, set())
    outfits = list(of.outfits(found.outfits(), known, "p", "p-x"))
    assert [(o[0], o[1].code.value) for o in outfits if isinstance(o, tuple)] == [
        ("p-x/20", "ambiguous"), ("p-x/21", "missing_slot"), ("p-x/22", "missing_slot"), ("p-x/23", "missing_slot"),
    ]  # fmt: skip
    assert outfits[0][1].detail.startswith("20_2 is two items (")
    assert outfits[4]["items"][0]["category"] == "top", "of two records of one item the first counts"
    unclear, clear = [q for q in found.questions() if q.split == "train"]
    assert (unclear.right, unclear.why[:20]) == (None, "20_2 is two items (" + str(tmp_path)[0])
    assert clear.right == 1


def test_what_follows_the_end_of_a_file_is_told(tmp_path):
    (tmp_path / "x.json").write_text("[1] 2")
    with pytest.raises(UsageError, match="'2' after its end, at character 3"):
        list(members(tmp_path / "x.json"))
    (tmp_path / "x.json").write_text('{"\\ud800": 1}')
    with pytest.raises(UsageError, match="half a character"):
        list(members(tmp_path / "x.json"))


def test_street2shop_numbers_and_photos(tmp_path):
    street2shop(tmp_path)
    for text, words in (("\u00b2,http://x\n", "is not like"), ("1,http://x\n01,http://y\n", "came before, with another URL")):
        write(tmp_path / "photos.txt", text)
        with pytest.raises(UsageError, match=words):
            list(opened(tmp_path, "street2shop").shops())
