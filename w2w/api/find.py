"""A warm finder: photos in, their garments with products out, in this process. No Ray."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from w2w import config as configuration
from w2w import storage
from w2w.api.images import AnImage, Images, as_list, pixels
from w2w.errors import Reject, UsageError, attempt
from w2w.find.answers import Answer, Catalog, answer, of_words, unreadable
from w2w.find.finder import Finder as Model
from w2w.find.finder import Models, Plan, plan_of
from w2w.find.rules import FindOptions
from w2w.find.stage import stored
from w2w.garments.detector import DetectorConfig
from w2w.garments.segmenter import SegmenterConfig
from w2w.images.decode import probe
from w2w.images.resize import shrink
from w2w.models.config import EncoderConfig
from w2w.models.text import Words, load_words

_LONGEST_PX = 1600  # as in `w2w find`


@dataclass(frozen=True)
class FinderConfig(FindOptions):
    """The options of ``w2w find`` that a warm finder has."""

    encoder: EncoderConfig = EncoderConfig()
    """The model. Default: the one that the index was made with."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """The garment detector."""
    segmenter: SegmenterConfig = SegmenterConfig()
    """The segmenter that cuts out the person, with cut_out=True or cut_out_by="person"."""


def load_finder(store: str, **options: Any) -> "Finder":
    """Loads the models and opens the index, once. ``options`` are those of ``w2w find``: k, filter, per_class, cut_out ...; and
    the groups encoder, detector and segmenter. Raises UsageError as ``w2w find`` does, and for options of the job alone."""
    _check_of_job(options)
    config = configuration.build(FinderConfig, options, "w2w.load_finder")
    plain = FindOptions(**{name: getattr(config, name) for name in FindOptions.__dataclass_fields__})
    models = Models(config.encoder, config.detector, config.segmenter)
    return Finder(plan_of(storage.absolute(os.fspath(store)), plain, models).on_all_cores())


def _check_of_job(options: Mapping[str, Any]) -> None:
    """Raises UsageError for options of ``w2w find`` that a warm finder lacks, such as explain, which is for the job's page."""
    others = [name for name in options if name not in FinderConfig.__dataclass_fields__]
    if others:
        from w2w.find.job import Config  # imports Ray

        for name in others:
            if name in Config.__dataclass_fields__:
                job = f"w2w.find(photos=[...], store=..., {name}=...)"
                raise UsageError(f"w2w.load_finder has no option {name!r}: only the job has it, {job}")


class Finder:
    """Photos to answers: garments from the top of the photo down, each with the products that look like it."""

    def __init__(self, plan: Plan):
        self._plan, self._model, self._catalog = plan, Model(plan), Catalog(plan.store)
        self._words: Words | None = None

    def __call__(self, photos: Images, text: str = "") -> list[Answer]:
        """One answer per photo, in order; unreadable photos have a ``reject``. ``text``: words mixed into each garment's
        embedding, by ``text_weight``. Raises UsageError for what is not an image, and for words without a text tower."""
        words_D = self._vector(text or self._plan.options.text)
        seen = [self._look(place, photo) for place, photo in enumerate(as_list(photos))]
        good = [one for one in seen if isinstance(one, _Photo)]
        found = iter(self._model([one.pixels for one in good], words_D))
        return [unreadable(*one) if isinstance(one, tuple) else self._answer(one, next(found)) for one in seen]

    def text(self, text: str) -> Answer:
        """The products that match a text. Raises UsageError if the encoder has no text tower."""
        words_D = self._vector(text)
        if words_D is None:
            raise UsageError("the text is empty: say what to look for")
        return of_words(text, self._model.shelves.products_of(words_D), self._catalog, self._plan.options)

    def _vector(self, text: str) -> np.ndarray | None:
        if not text.strip():
            return None
        self._words = self._words or load_words(self._plan.models.encoder)
        return self._words(text)

    def _answer(self, photo: "_Photo", found: Any) -> Answer:
        if isinstance(found, Reject):
            return unreadable(photo.name, found.code, found.detail)
        scale = photo.width / photo.pixels.shape[1]
        garments = [stored(find, scale) for find in found]
        return answer(photo.name, photo.width, photo.height, garments, self._catalog, self._plan.options)

    def _look(self, place: int, image: AnImage) -> "_Photo | tuple[str, str, str]":
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else f"photos[{place}]"
        try:
            found = attempt(_read, name, image)
        except TypeError as e:
            raise UsageError(f"photos[{place}] is {e}: must be a uint8 array (H, W, 3), a PIL image, bytes or a path") from None
        return (name, str(found.code), found.detail) if isinstance(found, Reject) else found


@dataclass(frozen=True)
class _Photo:
    """The model's view of a photo, and its own upright size."""

    name: str
    pixels: np.ndarray
    width: int
    height: int


def _read(name: str, image: AnImage) -> _Photo:
    if isinstance(image, str | os.PathLike):
        image = storage.read_bytes(storage.absolute(name))
    found = pixels(image, _LONGEST_PX)
    size = probe(bytes(image)) if isinstance(image, bytes | bytearray) else None  # a JPEG may be decoded at reduced size
    width, height = (size.width, size.height) if size else (found.shape[1], found.shape[0])
    return _Photo(name, shrink(found, _LONGEST_PX), width, height)
