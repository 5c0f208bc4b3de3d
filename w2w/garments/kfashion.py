"""K-Fashion (AI Hub): one JSON a photo; boxes as X좌표, Y좌표, 가로 (width), 세로 (height) under 렉트좌표; {} is absent."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from w2w.config import nearest
from w2w.errors import UsageError
from w2w.garments.records import Record, below, files_below, from_xywh, numbers, read_json
from w2w.garments.taxonomy import VOCABULARIES

_LABELS = tuple(VOCABULARIES["k-fashion"])


@dataclass(frozen=True)
class KPhoto:
    """A photo: its name in the set, its file, (label, box) of each garment, and the styles that it is said to have."""

    where: str
    name: str
    image: str
    boxes: tuple[tuple[str, tuple[float, float, float, float]], ...]
    styles: tuple[str, ...]


def read(path: Path, images: Path | None) -> Iterator[KPhoto]:
    """The photos of all JSON files below a folder, or of one file, in order. Raises UsageError naming the file and field."""
    files = files_below(path, (".json",)) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path}: no *.json there")
    for file in files:
        record = Record(str(file), read_json(file))
        image = Record(f"{file}: 이미지 정보", record.get("이미지 정보", dict)).get("이미지 파일명", str)
        info = Record(f"{file}: 데이터셋 정보", record.get("데이터셋 정보", dict)).get("데이터셋 상세설명", dict)
        details = Record(f"{file}: 데이터셋 상세설명", info)
        rectangles = Record(f"{file}: 렉트좌표", details.get("렉트좌표", dict))
        boxes = []
        for label, _ in rectangles.items():
            if label not in _LABELS:
                raise UsageError(f"{rectangles.where}: {label!r} is not K-Fashion's.{nearest(label, list(_LABELS))}")
            for i, values in enumerate(rectangles.get(label, list)):
                if not values:
                    continue
                one = Record(f"{rectangles.where}: {label}[{i}]", values)
                box = [one.get(name, (int, float)) for name in ("X좌표", "Y좌표", "가로", "세로")]
                boxes.append((label, from_xywh(numbers(box, 4, one.where))))
        inside = file.relative_to(path).parent if path.is_dir() else Path()
        folder = images / inside if images else file.parent
        name = (inside / image).as_posix()
        found = below(folder, image, f"{file}: 이미지 정보")
        yield KPhoto(str(file), name, found, tuple(boxes), _styles(details))


def _styles(details: Record) -> tuple[str, ...]:
    """라벨링.스타일: a list of {스타일, 서브스타일}, each of which may be {} or missing."""
    labels = Record(f"{details.where}: 라벨링", details.get("라벨링", dict, {}))
    found = []
    for i, values in enumerate(labels.get("스타일", list, [])):
        one = Record(f"{labels.where}: 스타일[{i}]", values)
        found += [one.get(name, str) for name in ("스타일", "서브스타일") if one.get(name, str, "")]
    return tuple(dict.fromkeys(found))
