"""What the seeds had and a machine without internet has not: public sets, drawn from the wardrobe's street posts in the very
layout of each, and models of the hub, small and with random weights.

python -m tests.bench.seed_data annotations SHOP FOLDER   modanet/ and fashionpedia/: half of the posts each
python -m tests.bench.seed_data sets SHOP FOLDER          deepfashion2/, k-fashion/ and pairs/
python -m tests.bench.seed_data looks SHOP FOLDER         photos of one style in pairs: whole/, and person/, the box of clothes
python -m tests.bench.seed_data hub FOLDER                clip, siglip, swin, resnet, resnext, conditional-detr, sam; w2w-lite0
"""

import argparse
import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from w2w.garments import own
from w2w.garments.taxonomy import VOCABULARIES
from w2w.images.decode import probe
from w2w.wardrobe.garment import STYLES

_VISIBLE = 0.2  # a garment of which less is seen is annotated by nobody
_STYLES = ("캐주얼", "스트리트", "클래식", "스포티", "로맨틱")  # of K-Fashion, one for each of the wardrobe's
_TIMM = {"resnet": "resnet18", "resnext": "resnext50_32x4d"}
_TOWER = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}


def posts_of(shop: Path) -> list[dict[str, Any]]:
    """Lines of posts.jsonl with the items that are seen, where there are some."""
    rows = [json.loads(line) for line in (shop / "posts.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row | {"items": [i for i in row["items"] if i["visible_fraction"] >= _VISIBLE]} for row in rows]
    return [row for row in rows if row["items"]]


def label(vocabulary: str, category: str, number: int) -> str | None:
    """One of the labels that a set has for a class, another for another number; None where it has none."""
    labels = [name for name, target in VOCABULARIES[vocabulary].items() if target == category]
    return labels[number % len(labels)] if labels else None


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _copy(shop: Path, image: str, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shop / image, place)


def write_coco(shop: Path, posts: Sequence[dict], folder: Path, vocabulary: str, file: str) -> None:
    """``file`` and images/ as ModaNet and Fashionpedia have them: boxes as x, y, width, height."""
    names = list(VOCABULARIES[vocabulary])
    images: list[dict] = []
    records: list[dict] = []
    for number, post in enumerate(posts, 1):
        name = f"{number:07d}.jpg"
        _copy(shop, post["image"], folder / "images" / name)
        info = probe((shop / post["image"]).read_bytes())
        images.append({"id": number, "file_name": name, "width": info.width, "height": info.height})
        for item in post["items"]:
            x0, y0, x1, y1 = item["box_xyxy"]
            record = {"id": len(records) + 1, "image_id": number, "iscrowd": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            records.append(record | {"category_id": names.index(label(vocabulary, item["category"], number))})
    listed = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(names)]
    _write(folder / file, {"images": images, "categories": listed, "annotations": records})


def write_deepfashion2(shop: Path, posts: Sequence[dict], folder: Path) -> None:
    """{train,validation}/{image,annos}: one in three products is of the validation set. A product is a pair of its own, and its
    thumbnail the shop's photo."""
    owners = sorted({item["product_id"] for post in posts for item in post["items"]})
    pair = {product: number for number, product in enumerate(owners, 1)}
    counts: defaultdict[str, int] = defaultdict(int)

    def record(source: str, item: dict, image: str, box: Sequence[float]) -> None:
        number = pair[item["product_id"]]
        name = label("deepfashion2", item["category"], number)
        if name is None:  # it has neither bags nor hats nor shoes
            return
        part = "validation" if number % 3 == 0 else "train"
        counts[part] += 1
        file = f"{counts[part]:06d}"
        _copy(shop, image, folder / part / "image" / f"{file}.jpg")
        one = {"category_name": name, "style": 1, "bounding_box": list(box), "scale": 1, "occlusion": 1, "viewpoint": 2}
        _write(folder / part / "annos" / f"{file}.json", {"source": source, "pair_id": number, "item1": one})

    shown = set()
    for post in posts:
        for item in post["items"]:
            record("user", item, post["image"], item["box_xyxy"])
            if item["product_id"] not in shown:
                shown.add(item["product_id"])
                thumbnail = f"images/{item['product_id']}.jpg"
                info = probe((shop / thumbnail).read_bytes())
                record("shop", item, thumbnail, (0, 0, info.width, info.height))


def styles_of(shop: Path, posts: Sequence[dict]) -> list[str]:
    """The style of each post: that of the first garment, as an outfit is of one."""
    with open(shop / "products.csv", encoding="utf-8") as file:
        style_of = {row["product_id"]: row["style"] for row in csv.DictReader(file)}
    return [style_of[post["items"][0]["product_id"]] for post in posts]


def write_k_fashion(shop: Path, posts: Sequence[dict], folder: Path) -> None:
    """A JSON a photo, in a folder a style: boxes of its four classes, and the style."""
    for number, (post, style) in enumerate(zip(posts, styles_of(shop, posts)), 1):
        style = _STYLES[STYLES.index(style)]
        rectangles: dict[str, list[dict]] = {name: [{}] for name in VOCABULARIES["k-fashion"]}
        for item in post["items"]:
            x0, y0, x1, y1 = item["box_xyxy"]
            if name := label("k-fashion", item["category"], 0):
                rectangles[name] = [{"X좌표": x0, "Y좌표": y0, "가로": x1 - x0, "세로": y1 - y0}]
        details = {"렉트좌표": rectangles, "라벨링": {"스타일": [{"스타일": style}]}}
        record = {"이미지 정보": {"이미지 파일명": f"{number}.jpg"}, "데이터셋 정보": {"데이터셋 상세설명": details}}
        _copy(shop, post["image"], folder / style / f"{number}.jpg")
        _write(folder / style / f"{number}.json", record)


def write_pairs(shop: Path, folder: Path) -> None:
    """pairs.csv of cut-out garments and their products, as lists of anchors and cloths are."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(shop / "queries.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["anchor", "positive", "category", "product"])
        for row in rows:
            anchor, positive = Path(row["image"]).name, f"{row['sku']}.jpg"
            _copy(shop, row["image"], folder / anchor)
            _copy(shop, f"images/{positive}", folder / positive)
            writer.writerow([anchor, positive, row["category"], row["sku"]])


def write_looks(shop: Path, folder: Path) -> None:
    """pairs.csv of two photos of one style each, in two folders: as they are, and cut to the box around all clothes."""
    posts = posts_of(shop)
    styles = styles_of(shop, posts)
    for part in ("whole", "person"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for post in posts:
            with Image.open(shop / post["image"]) as photo:
                x0, y0, x1, y1 = zip(*(item["box_xyxy"] for item in post["items"]))
                seen = photo.crop((min(x0), min(y0), max(x1), max(y1))) if part == "person" else photo
                seen.save(folder / part / Path(post["image"]).name, quality=92)
        with open(folder / part / "pairs.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["anchor", "positive"])
            for style in STYLES:
                names = [Path(p["image"]).name for p, own in zip(posts, styles) if own == style]
                writer.writerows(zip(names[::2], names[1::2]))


def write_annotations(shop: Path, folder: Path) -> None:
    posts = posts_of(shop)
    write_coco(shop, posts[::2], folder / "modanet", "modanet", "instances_all.json")
    write_coco(shop, posts[1::2], folder / "fashionpedia", "fashionpedia", "instances_attributes_train2020.json")


def write_sets(shop: Path, folder: Path) -> None:
    posts = posts_of(shop)
    write_deepfashion2(shop, posts, folder / "deepfashion2")
    write_k_fashion(shop, posts, folder / "k-fashion")
    write_pairs(shop, folder / "pairs")


def write_hub(folder: Path) -> None:
    """The architectures that the seeds name, in the hub's layout; two of timm as a file. Vectors are as long as theirs: 512 of
    CLIP, 768 of SigLIP; Swin's as long as its last stage. Beside them our own detector, with its weights."""
    import timm
    import torch
    import transformers as t
    from safetensors.torch import save_file

    torch.manual_seed(0)
    seen = {"image_size": 64, "patch_size": 16}
    words = {**_TOWER, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2}
    wide = {**_TOWER, "hidden_size": 768}
    clip = t.CLIPConfig(
        text_config=t.CLIPTextConfig(**words).to_dict(),
        vision_config=t.CLIPVisionConfig(**_TOWER, **seen).to_dict(),
        projection_dim=512,
    )
    siglip = t.SiglipConfig(
        text_config=t.SiglipTextConfig(**{**words, "hidden_size": 768}).to_dict(),
        vision_config=t.SiglipVisionConfig(**wide, **seen).to_dict(),
    )
    swin = t.SwinConfig(image_size=64, patch_size=4, embed_dim=16, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=2)
    for name, model in {
        "clip": t.CLIPModel(clip),
        "siglip": t.SiglipModel(siglip),
        "swin": t.SwinModel(swin),
    }.items():
        model.eval().save_pretrained(folder / name)
        t.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / name)
    for name, architecture in _TIMM.items():
        save_file(timm.create_model(architecture, pretrained=False).state_dict(), folder / f"{name}.safetensors")
    from tests.unit.garments.models import save_detector, save_sam

    shutil.copytree(own.DEFAULT_FOLDER, folder / own.DEFAULT, dirs_exist_ok=True)
    save_detector(folder / "conditional-detr", "conditional_detr")
    save_sam(folder / "sam", "sam")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("annotations", "sets", "looks", "hub"))
    parser.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    write = {"annotations": write_annotations, "sets": write_sets, "looks": write_looks, "hub": write_hub}[options.what]
    write(*options.folders)


if __name__ == "__main__":
    main()
