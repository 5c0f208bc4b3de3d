"""Annotation files of the published data sets, each read as its documentation describes.

A reader yields photos; a file or record that violates the format raises UsageError naming both. Labels are mapped to classes by
their names in the file. Labels without a class are ignored, and so are photos without any record.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from w2w import plugins, storage
from w2w.config import check_name, nearest
from w2w.errors import UsageError
from w2w.garments import kfashion
from w2w.garments.annotations import TEST, TRAIN, Object, Photo, annotated_rows, targets_of
from w2w.garments.masks import from_polygons, from_rle, tight_box, to_rle
from w2w.garments.records import Record, below, files_below, from_xywh, numbers, parse_json, read_json, read_text, shown
from w2w.garments.taxonomy import CATEGORIES, IGNORE, PERSON, SHOES, VOCABULARIES, TaxonomyConfig, mapping_of, street_target
from w2w.images.sniff import SUFFIXES

_LEAST_SEEN = 0.1  # visible share of a rendered garment
_SEED_SHOES = 2  # the seed dropped photos with more shoe boxes than one person has feet


@dataclass(frozen=True)
class AnnotationsConfig:
    """Which annotations are read, and how."""

    path: str = ""
    """Instances JSON (coco, modanet, fashionpedia, ccp), data.yaml (yolo), or a folder (deepfashion2, k-fashion, wardrobe)."""
    format: str = "coco"
    """coco, modanet, fashionpedia, deepfashion2, k-fashion, yolo, ccp (Clothing Co-Parsing with supercategories), wardrobe, or
    module:attribute, a format of your own."""
    images: str | None = None
    """Folder of the photos. Default: the format's usual place, relative to path."""
    source: str | None = None
    """Name of the data set in the table. Default: the format."""
    taxonomy: TaxonomyConfig = field(default_factory=TaxonomyConfig)
    """How labels become our classes."""
    split: str | None = None
    """Put every photo into this split. Default: the data set's own split, else by hash."""
    test_share: float = 0.1
    """Of the photos (or products) that go to test by hash."""

    def __post_init__(self):
        plugins.check("annotations", self.format, FORMATS)
        if self.source is not None:
            check_name(self.source, "annotations.source")
        if self.split not in (None, TRAIN, TEST):
            raise UsageError(f"annotations.split={self.split}: must be {TRAIN} or {TEST}")
        if not 0 <= self.test_share <= 1:
            raise UsageError(f"annotations.test_share={self.test_share}: a share between 0 and 1")


def read_annotations(config: AnnotationsConfig) -> pa.Table:
    """Every annotated photo, in ANNOTATED_SCHEMA. Raises UsageError naming file and record."""
    for option, value in (("path", config.path), ("images", config.images or "")):
        if storage.is_s3(value):
            raise UsageError(f"annotations.{option}={value}: annotations and photos are read from a disk: copy them")
    if not config.path or not storage.exists(config.path):
        raise UsageError(f"annotations.path={config.path}: no such file or folder")
    if config.images:
        if not os.path.isdir(storage.absolute(config.images)):
            raise UsageError(f"annotations.images={config.images}: no such folder")
        config = replace(config, images=storage.absolute(config.images))  # workers run in other folders
    path = Path(storage.absolute(config.path))
    photos, labelled = plugins.find("annotations", config.format, FORMATS)(path, config)
    photos = list(photos)
    if not photos:
        raise UsageError(f"annotations.path={config.path}: it has no photo with annotations")
    if config.taxonomy.seed:
        photos = (p for p in photos if sum(o.target == SHOES for o in p.objects) <= _SEED_SHOES)
    if config.split:
        photos = (Photo(p.name, p.image_uri, p.objects, p.group, config.split, p.relative) for p in photos)
    return annotated_rows(photos, config.source or plugins.short(config.format), labelled, config.test_share)


def _coco_boxes(one: Record, target: str) -> list[tuple[float, ...]]:
    """The annotation's bbox; if it has none (Fashionpedia's sample), the box around its segmentation."""
    if one.get("bbox", (list, tuple), None) is not None:
        return [from_xywh(one.numbers("bbox", 4))]
    return [_around(_polygon_boxes(one))]


def _modanet_boxes(one: Record, target: str) -> list[tuple[float, ...]]:
    """ModaNet's bbox covers only its last polygon (record 992824: two shoes, the box of one). So: around all polygons, and for
    shoes of two polygons one box each, as in Fashionpedia and the seed's maskrcnn-modanet."""
    polygons = one.get("segmentation", (list, dict), None)
    found: list[tuple[float, ...]] = _polygon_boxes(one) if polygons else [from_xywh(one.numbers("bbox", 4))]
    return found if target == SHOES and len(found) == 2 else [_around(found)]


def _polygon_boxes(one: Record) -> list[tuple[float, ...]]:
    """The box of each polygon [x, y, x, y, ...], or of the run lengths."""
    shape = _segmentation(one)
    if isinstance(shape, dict):
        tight = tight_box(_filled(one, from_rle, shape))
        return [tuple(map(float, tight or (0, 0, 0, 0)))]
    if not shape or any(len(p) < 6 for p in shape):
        raise UsageError(f"{one.where}: segmentation is neither polygons of 3 or more points nor run lengths")
    return [(min(p[::2]), min(p[1::2]), max(p[::2]), max(p[1::2])) for p in shape]


def _segmentation(one: Record) -> dict | list[tuple[float, ...]] | None:
    """COCO's run lengths, or its polygons [x, y, x, y, ...]; None if there are neither."""
    shape, where = one.get("segmentation", (list, dict, type(None)), None), f"{one.where}: segmentation"
    if shape is None or isinstance(shape, dict):
        return shape
    if any(not isinstance(p, list) or len(p) % 2 for p in shape):
        raise UsageError(f"{where} is neither polygons of 3 or more points nor run lengths")
    return [numbers(p, len(p), where) for p in shape]


def _filled(one: Record, fill: Callable[..., np.ndarray], *shape: object) -> np.ndarray:
    try:
        return fill(*shape)
    except ValueError as e:
        raise UsageError(f"{one.where}: segmentation: {e}") from e


def _mask(one: Record, height: int | None, width: int | None) -> dict | None:
    """The object's pixels; None if the file has only its box, polygons without pixels (some tools write [[]] for none), or
    polygons without the photo's size."""
    shape = _segmentation(one)
    if isinstance(shape, dict):
        mask = _filled(one, from_rle, shape)
        if height and width and mask.shape != (height, width):
            there = " x ".join(map(str, mask.shape))
            raise UsageError(f"{one.where}: segmentation: run lengths of {there} in a photo of {height} x {width}")
        return to_rle(mask)
    if not shape or not height or not width:
        return None
    mask = _filled(one, from_polygons, shape, height, width)
    return to_rle(mask) if mask.any() else None


def _around(found: list[tuple[float, ...]]) -> tuple[float, ...]:
    lefts, tops, rights, bottoms = zip(*found)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _coco(path: Path, config: AnnotationsConfig, target_of: Callable | None = None, boxes_of: Callable = _coco_boxes):
    """Microsoft COCO's instances (cocodataset.org, "Data format"): boxes [x, y, width, height]; iscrowd is an ignore region."""
    file = Record(str(path), read_json(path))
    kinds = {}
    for i, values in enumerate(file.get("categories", list)):
        category = Record(f"{path}: categories[{i}]", values)
        about = (category.get("name", str), category.get("supercategory", (str, type(None)), ""))
        if kinds.setdefault(category.get("id", int), about) is not about:
            raise UsageError(f"{category.where}: id {category.get('id', int)} came before")
    if "annotations" not in dict(file.items()):
        raise UsageError(f"{path}: has no annotations, only {', '.join(dict(file.items()))} (ModaNet's val list is like that)")
    if target_of:
        targets = {name: target_of(name, above or "") for name, above in kinds.values()}
        if strange := sorted(str(t) for t in targets.values() if t not in (*CATEGORIES, PERSON, IGNORE, None)):
            raise UsageError(f"{path}: supercategory {strange[0]!r} is not one of {', '.join(CATEGORIES)}")
    else:
        targets = mapping_of([name for name, _ in kinds.values()], config.taxonomy, str(path))
    images, objects = {}, {}
    for i, values in enumerate(file.get("images", list)):
        image = Record(f"{path}: images[{i}]", values)
        size = image.get("height", (int, type(None)), None), image.get("width", (int, type(None)), None)
        if any(side is not None and side < 1 for side in size):
            raise UsageError(f"{image.where}: height {size[0]} and width {size[1]} are not a photo's")
        about = (image.get("file_name", str), image.get("split", str, None), size)
        if images.setdefault(image.get("id", (int, str)), about) is not about:
            raise UsageError(f"{image.where}: id {image.get('id', (int, str))!r} came before")
    for i, values in enumerate(file.get("annotations", list)):
        one = Record(f"{path}: annotations[{i}]", values)
        one.where += f" (id {one.get('id', (int, str), '?')})"
        owner, kind = one.get("image_id", (int, str)), one.get("category_id", int)
        if owner not in images:
            raise UsageError(f"{one.where}: image_id {owner!r} is not among the images")
        if kind not in kinds:
            raise UsageError(f"{one.where}: category_id {kind!r} is not among the categories")
        label = kinds[kind][0]
        target = IGNORE if one.get("iscrowd", (int, bool), 0) and targets[label] else targets[label]
        mine = objects.setdefault(owner, [])
        if target:
            found = boxes_of(one, target)
            mask = _mask(one, *images[owner][2]) if len(found) == 1 else None
            mine += [Object(box, label, target, mask) for box in found]
    folder = Path(config.images or path.parent)
    photos = [
        Photo(name, below(folder, name, f"{path}: images"), tuple(objects[number]), name, split)
        for number, (name, split, _) in images.items()
        if number in objects
    ]
    return photos, targets_of(targets)


def _known(vocabulary: str, boxes_of: Callable = _coco_boxes) -> Callable:
    """COCO's format with the labels of one data set, so that a stray label is an error and not guessed."""

    def read(path: Path, config: AnnotationsConfig):
        chosen = {k: getattr(config.taxonomy, k) for k in ("classes", "seed", "jumpsuit", "tights")}
        fixed = AnnotationsConfig(config.path, config.format, config.images, taxonomy=TaxonomyConfig(vocabulary, **chosen))
        return _coco(path, fixed, boxes_of=boxes_of)

    return read


def _ccp(path: Path, config: AnnotationsConfig):
    """Clothing Co-Parsing in COCO's format, with our class as each category's supercategory."""
    return _coco(path, config, street_target)


def _deepfashion2(path: Path, config: AnnotationsConfig):
    """DeepFashion2: one JSON per photo, item1, item2, ..., boxes [x1, y1, x2, y2] (README, "Data Organization").

    ``path`` is the folder of train and validation, one of these, or annos. Photos of one pair_id stay on one side of the split.
    """
    folders = [
        f for f in (path, path / "annos", path / "train" / "annos", path / "validation" / "annos") if any(f.glob("*.json"))
    ]
    if not folders:
        raise UsageError(f"{path}: no *.json there, nor in annos, train/annos or validation/annos")
    targets = mapping_of(VOCABULARIES["deepfashion2"], config.taxonomy)

    def photos() -> Iterator[Photo]:
        for folder in folders:
            split = {"train": "train", "validation": "test"}.get(folder.parent.name)
            for file in files_below(folder, (".json",), recursive=False):
                record = Record(str(file), read_json(file))
                items = [(name, value) for name, value in record.items() if name.startswith("item")]
                objects = []
                for name, value in sorted(items, key=lambda item: (len(item[0]), item[0])):
                    item = Record(f"{file}: {name}", value)
                    label = item.get("category_name", str)
                    if label not in targets:
                        raise UsageError(
                            f"{item.where}: category_name {label!r} is not DeepFashion2's.{nearest(label, list(targets))}"
                        )
                    if target := targets[label]:
                        objects.append(Object(item.numbers("bounding_box", 4), label, target))
                name = f"{folder.parent.name}/{file.stem}"
                image = Path(config.images or folder.parent / "image") / f"{file.stem}.jpg"
                yield Photo(name, str(image), tuple(objects), f"pair {record.get('pair_id', int)}", split)

    return photos(), targets_of(targets)


def _k_fashion(path: Path, config: AnnotationsConfig):
    targets = mapping_of(VOCABULARIES["k-fashion"], config.taxonomy)

    def photos() -> Iterator[Photo]:
        for photo in kfashion.read(path, Path(config.images) if config.images else None):
            objects = [Object(box, label, target) for label, box in photo.boxes if (target := targets[label])]
            yield Photo(photo.name, photo.image, tuple(objects), photo.name)

    return photos(), targets_of(targets)


def _yolo(path: Path, config: AnnotationsConfig):
    """YOLO: data.yaml with names and image folders; beside images/ a labels/ with ``class cx cy w h`` in shares of the photo.

    Lines with more numbers are polygons (x y x y ...): their box. Source: docs.ultralytics.com, "Detection datasets".
    """
    file = path / "data.yaml" if path.is_dir() else path
    try:
        described = yaml.safe_load(read_text(file))
    except (ValueError, RecursionError, yaml.YAMLError) as e:
        if isinstance(e, UsageError):
            raise
        raise UsageError(f"{file}: cannot be read as YAML: {(str(e).splitlines() or [type(e).__name__])[0]}") from e
    record = Record(str(file), described)
    names = record.get("names", (list, dict))
    if isinstance(names, list):
        names = dict(enumerate(names))
    names = {int(k) if isinstance(k, str) and k.isdecimal() else k: name for k, name in names.items()}
    for number, name in names.items():
        if type(number) is not int or not isinstance(name, (str, int, float)):
            raise UsageError(f"{file}: names: {shown(number)}: {shown(name)} is not a number and its name")
    targets = mapping_of(map(str, names.values()), config.taxonomy, str(file))
    root = Path(record.get("path", str, "."))
    root = root if root.is_absolute() else file.parent / root
    parts = [(split, record.get(split, str, None)) for split in ("train", "val", "test")]
    folders = [("test" if split == "val" else split, root / where) for split, where in parts if where]
    if not folders:
        raise UsageError(f"{file}: names no folder of images: train, val or test")

    def photos() -> Iterator[Photo]:
        for split, folder in folders:
            if not folder.is_dir():
                raise UsageError(f"{file}: {split}: no folder {folder}")
            for image in files_below(folder, SUFFIXES):
                labels = _yolo_labels(image)
                if not labels.exists():
                    continue
                objects = tuple(_yolo_objects(labels, names, targets))
                yield Photo(
                    Path(os.path.relpath(image, root)).as_posix(), str(image), objects, image.name, split, relative=True
                )

    return photos(), targets_of(targets)


def _yolo_labels(image: Path) -> Path:
    """The file with a photo's labels: the last folder called images is replaced by labels (ultralytics, img2label_paths)."""
    head, images, tail = image.as_posix().rpartition("/images/")
    return Path(f"{head}/labels/{tail}" if images else tail).with_suffix(".txt")


def _yolo_objects(file: Path, names: Mapping[int, str], targets: Mapping[str, str | None]) -> Iterator[Object]:
    for number, line in enumerate(read_text(file).splitlines(), 1):
        words, where = line.split(), f"{file}, line {number}"
        if not words:
            continue
        try:
            kind, values = int(words[0]), [float(w) for w in words[1:]]
        except ValueError:
            raise UsageError(f"{where}: {line!r:.60} is not a class and numbers") from None
        if kind not in names:
            raise UsageError(f"{where}: class {kind} is not among the names 0 to {max(names, default=-1)}")
        if len(values) == 4:
            cx, cy, w, h = values
            box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
        elif len(values) >= 6 and len(values) % 2 == 0:
            box = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
        else:
            raise UsageError(f"{where}: {len(values)} numbers: expected 4 of a box, or pairs of a polygon")
        numbers(list(box), 4, where)
        if target := targets[str(names[kind])]:
            yield Object(box, str(names[kind]), target)


def _wardrobe(path: Path, config: AnnotationsConfig):
    """Street posts of our synthetic shop (w2w/wardrobe/shop.py): boxes and pixels of what is visible; a garment less than a
    tenth visible is an ignore region."""
    file = path / "posts.jsonl" if path.is_dir() else path
    lines = read_text(file).splitlines()
    targets = mapping_of(VOCABULARIES["w2w"], config.taxonomy)

    def photos() -> Iterator[Photo]:
        for number, line in enumerate(lines, 1):
            where = f"{file}, line {number}"
            post = Record(where, parse_json(line, where))
            objects = []
            for i, values in enumerate(post.get("items", list)):
                item = Record(f"{where}: items[{i}]", values)
                label, mask = item.get("category", str), item.get("mask_rle", dict)
                if label not in targets:
                    raise UsageError(f"{item.where}: category {label!r} is not one of the wardrobe's")
                (share,) = numbers([item.get("visible_fraction", (int, float))], 1, f"{item.where}: visible_fraction")
                seen = share >= _LEAST_SEEN
                if target := targets[label]:
                    rle = to_rle(_filled(item, from_rle, mask))
                    objects.append(Object(item.numbers("box_xyxy", 4), label, target if seen else IGNORE, rle))
            image = post.get("image", str)
            yield Photo(image, below(Path(config.images or file.parent), image, where), tuple(objects), image)

    return photos(), targets_of(targets)


# name -> reads path and config: the photos, and which of our classes the data set labels exhaustively
FORMATS: dict[str, Callable[[Path, AnnotationsConfig], tuple[Iterable[Photo], Sequence[str]]]] = {
    "coco": _coco,
    "modanet": _known("modanet", _modanet_boxes),
    "fashionpedia": _known("fashionpedia"),
    "deepfashion2": _deepfashion2,
    "k-fashion": _k_fashion,
    "yolo": _yolo,
    "ccp": _ccp,
    "wardrobe": _wardrobe,
}
