"""Models loaded into this process: images in, arrays and boxes out. No Ray.

An image is a uint8 array (H, W, 3) in RGB, a PIL image, the bytes of a file, or its path (local or s3://). Pass many as a
sequence, or as one array (N, H, W, 3); a single one is treated as a sequence of one.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL.Image import Image

from w2w import config as configuration
from w2w import storage
from w2w.errors import Reject, UsageError
from w2w.garments.found import Found
from w2w.images import exif, pillow
from w2w.images.decode import decode
from w2w.models import encoder as encoders
from w2w.models.config import EncoderConfig, Input
from w2w.models.overlay import overlay

AnImage: TypeAlias = np.ndarray | Image | bytes | str | os.PathLike
Images: TypeAlias = AnImage | Sequence[AnImage]


def load_encoder(name: str = EncoderConfig.name, **options: Any) -> "Encoder":
    """``options`` are those of ``--encoder``. Raises UsageError for a missing model or device, or an unknown option."""
    config = configuration.build(EncoderConfig, {"name": name, **options}, "w2w.load_encoder")
    return Encoder(encoders.load_encoder(config), config)


class Encoder:
    """Images to vectors. ``model_version`` is that of table `embeddings`, ``dim`` the vectors' length."""

    def __init__(self, model: encoders.Encoder, config: EncoderConfig):
        self._model, self.config = model, config
        self.name, self.model_version, self.dim = model.name, model.model_version, model.dim

    def __call__(self, images: Images, batch_images: int = 32) -> np.ndarray:
        """float32 (N, dim) of length 1. Raises UsageError naming an image that cannot be read or computed."""
        size, resize = self._model.input.size_px, self._model.input.resize_px
        parts = [np.empty((0, self.dim), np.float32)]
        listed = as_list(images)
        for start in range(0, len(listed), batch_images):
            batch = np.empty((len(listed[start : start + batch_images]), size, size, 3), np.uint8)
            for place, image in enumerate(_arrays(listed[start : start + batch_images], start, resize)):
                batch[place] = self._model.prepare(image)
            vectors_ND = self._model.encode(batch)
            if bad := np.flatnonzero(~encoders.finite_rows(vectors_ND)).tolist():
                raise UsageError(f"images[{start + bad[0]}]: {self.name} gave NaN or infinity")
            parts.append(vectors_ND)
        return np.concatenate(parts)

    @cached_property
    def explainer(self) -> Any:
        """The network behind ``w2w.explain``, loaded on first use."""
        from w2w.models.explain import load_explainer

        return load_explainer(self.config)


def explain(encoder: Encoder, query: AnImage, result: AnImage) -> "Explained":
    """Which patches of two images make them similar to this encoder. Raises UsageError as the encoder does."""
    pictures = list(_arrays([query, result]))
    prepared = [encoder._model.prepare(picture) for picture in pictures]
    (found,) = encoder.explainer(prepared[0], prepared[1:])
    return Explained(found, pictures[0], pictures[1], encoder._model.input)


@dataclass(frozen=True)
class Explained:
    """For two images: ``contributions`` and ``heat`` are pairs of float32 (h, w), of query and result, one value per patch. If
    it is ``exact``, each side's contributions sum to ``cosine``, and so does ``pairs``, (h * w, h * w), of query and result
    patch; otherwise they are gradients. Heat is in [0, 1]."""

    found: Any  # models.explain.Explanation
    query: np.ndarray
    result: np.ndarray
    input: Input

    @property
    def cosine(self) -> float:
        return self.found.cosine

    @property
    def exact(self) -> bool:
        return self.found.exact

    @property
    def method(self) -> str:
        return self.found.method

    @property
    def contributions(self) -> tuple[np.ndarray, np.ndarray]:
        return self.found.query, self.found.result

    @property
    def heat(self) -> tuple[np.ndarray, np.ndarray]:
        return self.found.query_heat, self.found.result_heat

    @property
    def pairs(self) -> np.ndarray | None:
        return self.found.pairs

    def overlays(self, longest_px: int = 300) -> tuple[bytes, bytes]:
        """JPEGs of query and result: unchanged where patches contribute, dark and grey elsewhere."""
        query, result = (
            overlay(picture, heat, self.input, longest_px) for picture, heat in zip((self.query, self.result), self.heat)
        )
        return query, result


def load_detector(name: str | None = None, **options: Any) -> "Detector":
    """``options`` are those of ``--detector``. Raises as ``load_encoder`` does."""
    from w2w.garments.detector import Detector as Model
    from w2w.garments.detector import DetectorConfig

    given = options if name is None else {"name": name, **options}
    return Detector(Model(configuration.build(DetectorConfig, given, "w2w.load_detector")))


class Detector:
    """Photos to garments."""

    def __init__(self, model: Any):
        self._model = model

    def __call__(self, images: Images) -> list[Found]:
        """For each photo boxes_N4 (xyxy in its pixels), scores_N, labels (the model's own) and categories (ours), best first.
        Raises UsageError naming a photo that cannot be read or processed."""
        found: list[Found] = []
        for place, image in enumerate(_arrays(as_list(images))):
            (one,) = self._model([image])
            if isinstance(one, Reject):
                raise UsageError(f"images[{place}]: {one}")
            found.append(one)
        return found


def load_segmenter(name: str | None = None, **options: Any) -> "Segmenter":
    """``options`` are those of ``--segmenter``. Raises as ``load_encoder`` does."""
    from w2w.garments.segmenter import SegmenterConfig
    from w2w.garments.segmenter import load_segmenter as load

    given = options if name is None else {"name": name, **options}
    return Segmenter(load(configuration.build(SegmenterConfig, given, "w2w.load_segmenter")))


class Segmenter:
    """Photos to masks of people. ``needs_boxes``: it finds nobody by itself."""

    def __init__(self, model: Any):
        self._model, self.needs_boxes = model, model.needs_box

    def __call__(self, images: Images, boxes: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """For each photo bool (K, H, W): a mask for each of its boxes, float (K, 4) xyxy; without ``boxes`` a single foreground
        mask. Raises UsageError naming a photo that cannot be read or processed."""
        from w2w.garments.masked import Prompt

        listed = as_list(images)
        if boxes is None and self.needs_boxes:
            raise UsageError("this segmenter needs boxes: pass boxes=[...], an array (K, 4) for each photo")
        if boxes is not None and len(boxes) != len(listed):
            raise UsageError(f"{len(boxes)} arrays of boxes for {len(listed)} photos: give one for each")
        masks = []
        for place, image in enumerate(_arrays(listed)):
            given = None if boxes is None else np.asarray(boxes[place], np.float64).reshape(-1, 4)
            if given is not None and not len(given):
                masks.append(np.zeros((0, *image.shape[:2]), bool))
                continue
            try:
                found = self._model(
                    image, [Prompt((box[0], box[1], box[2], box[3])) for box in ([] if given is None else given.tolist())]
                )
            except Reject as e:
                raise UsageError(f"images[{place}]: {e}") from None
            masks.append(np.stack([one.mask for one in found]))
        return masks


def load_scorer(folder: str | os.PathLike, encoder: Encoder | None = None) -> "Scorer":
    """The scorer that `w2w train outfits` wrote to ``folder``; ``encoder``: the one whose vectors it was trained on (default:
    w2w's own). Raises UsageError if the folder has none, or the encoder's vectors have another length."""
    from w2w.models.compatibility import load_scorer as load

    path = Path(storage.absolute(os.fspath(folder)))
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such folder")
    network, slots = load(path)
    encoder = encoder or load_encoder()
    dim = json.loads((path / "config.json").read_text(encoding="utf-8"))["dim_in"]
    if dim != encoder.dim:
        raise UsageError(f"{path}: scores vectors of {dim} dimensions, and {encoder.name} gives {encoder.dim}: pass encoder=")
    return Scorer(network, slots, encoder)


@dataclass(frozen=True)
class Scorer:
    """Outfits to scores. ``slots``: the slots that an outfit may have."""

    network: Any
    slots: tuple[str, ...]
    encoder: Encoder

    def __call__(self, outfits: Sequence[Mapping[str, AnImage]]) -> np.ndarray:
        """float32 (N,), higher for better combinations. An outfit is slot -> image. Raises UsageError for a slot that the
        scorer does not know, or that it needs and the outfit lacks."""
        from w2w.models.compatibility import outfit_scores

        return outfit_scores(self.network, *self._arrays(outfits))

    def pairs(self, outfits: Sequence[Mapping[str, AnImage]]) -> np.ndarray:
        """float32 (N, S, S): how well each two of an outfit's items go together, in the order of ``slots``; NaN on the diagonal
        and for missing items. Cosines in the scorer's own space; a scorer of kind ``set`` has none and scores the two alone:
        log of the probability that they go together. Raises as ``__call__`` does."""
        from w2w.models.compatibility import pair_scores

        return pair_scores(self.network, *self._arrays(outfits))

    def _arrays(self, outfits: Sequence[Mapping[str, AnImage]]) -> tuple[np.ndarray, np.ndarray]:
        """Vectors (N, S, D) and slots (N, S)."""
        from w2w.models.compatibility import PAD, SetTransformer

        needs_all = not isinstance(self.network, SetTransformer)
        for place, outfit in enumerate(outfits):
            wrong = set(outfit) ^ set(self.slots) if needs_all else set(outfit) - set(self.slots)
            if wrong or not outfit:
                raise UsageError(
                    f"outfits[{place}] has {', '.join(outfit) or 'nothing'}: its slots are {', '.join(self.slots)}"
                )
        vectors_ID = self.encoder([image for outfit in outfits for image in outfit.values()])
        shape = len(outfits), len(self.slots)
        vectors_NSD, slots_NS = np.zeros((*shape, self.encoder.dim), np.float32), np.full(shape, PAD, np.int64)
        vectors = iter(vectors_ID)
        for n, outfit in enumerate(outfits):
            for slot in outfit:
                s = self.slots.index(slot)
                vectors_NSD[n, s], slots_NS[n, s] = next(vectors), s
        return vectors_NSD, slots_NS


def as_list(images: Images) -> Sequence[AnImage]:
    """Several images as they are; a single one as a sequence of one."""
    single = isinstance(images, str | bytes | os.PathLike | Image) or (isinstance(images, np.ndarray) and images.ndim == 3)
    if not single and not isinstance(images, Iterable):
        raise UsageError(f"images: is {type(images).__name__}; an array (H, W, 3), a PIL image, bytes, a path, or several")
    return [images] if single else list(images)  # type: ignore[list-item, arg-type]


def _arrays(images: Sequence[AnImage], start: int = 0, min_side_px: int | None = None) -> Iterator[np.ndarray]:
    """Each as uint8 (H, W, 3); a JPEG may be scaled down, but not below ``min_side_px``."""
    for place, image in enumerate(images, start):
        try:
            yield pixels(image, min_side_px)
        except (Reject, OSError) as e:
            what = f" ({image})" if isinstance(image, str | os.PathLike) else ""
            raise UsageError(f"images[{place}]{what}: {e}") from e
        except TypeError as e:
            raise UsageError(
                f"images[{place}] is {e}: an image is a uint8 array (H, W, 3), a PIL image, bytes or a path"
            ) from None


def pixels(image: AnImage, min_side_px: int | None) -> np.ndarray:
    """Raises Reject or OSError for an unreadable image, TypeError for anything else."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise TypeError(f"an array of {image.dtype} {list(image.shape)}")
        return image
    if isinstance(image, Image):
        return exif.upright(pillow.pixels(image), exif.orientation(image.info.get("exif", b"")))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), min_side_px_wanted=min_side_px)
    if isinstance(image, str | os.PathLike):
        return decode(storage.read_bytes(storage.absolute(os.fspath(image))), min_side_px_wanted=min_side_px)
    raise TypeError(f"a {type(image).__name__}")
