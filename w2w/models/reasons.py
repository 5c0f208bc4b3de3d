"""Explanations for pages: two pictures with their heat, and the cosine that it explains."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from w2w.errors import Reject, attempt
from w2w.images.decode import decode
from w2w.images.resize import fit
from w2w.models.config import EncoderConfig, Input
from w2w.models.overlay import overlay
from w2w.report.page import jpeg_uri

_SHOWN_PX = 240


@dataclass(frozen=True)
class Reason:
    """For the macro ``reasons`` of parts.html.j2: data URIs of query and result; ``title`` is the result's."""

    query: str
    result: str
    cosine: float
    exact: bool
    title: str = ""


class Reasons:
    """Why an encoder finds pictures similar; its network is loaded on first use."""

    def __init__(self, config: EncoderConfig):
        self._config = config

    @cached_property
    def _explain(self) -> Any:
        from w2w.models.explain import load_explainer  # importing its torch costs seconds

        return load_explainer(self._config)

    def __call__(
        self, query: np.ndarray | bytes | None, results: Sequence[np.ndarray | bytes | None], titles: Sequence[str]
    ) -> list[Reason]:
        """The query with each readable result; ``titles``: the results' titles. Pictures are encoded, or pixels."""
        shape: Input = self._explain.input
        asked = _pixels(query, shape)
        readable = [(p, title) for p, title in ((_pixels(r, shape), t) for r, t in zip(results, titles)) if p is not None]
        if asked is None:
            return []
        prepared = [
            fit(p, shape.size_px, shape.mode, shape.resample, shape.resize_px) for p in (asked, *(p for p, _ in readable))
        ]
        told = self._explain(prepared[0], prepared[1:])
        return [
            Reason(
                jpeg_uri(overlay(asked, found.query_heat, shape, _SHOWN_PX)),
                jpeg_uri(overlay(pixels, found.result_heat, shape, _SHOWN_PX)),
                found.cosine,
                found.exact,
                title,
            )
            for found, (pixels, title) in zip(told, readable)
        ]


def _pixels(picture: np.ndarray | bytes | None, shape: Input) -> np.ndarray | None:
    if not isinstance(picture, bytes):
        return picture
    found = attempt(decode, picture, min_side_px_wanted=shape.resize_px)
    return None if isinstance(found, Reject) else found
