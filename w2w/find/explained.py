"""Why a garment's nearest products look like it: told once for each photo, however often its page is written."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from w2w.find.answers import Answer, Piece
from w2w.models.reasons import Reason, Reasons

Shown = tuple[Answer, bytes | None]  # the answer to a photo, and the encoded photo


class Explained:
    """``num``: how many of a garment's nearest products are explained. ``crops_of``: the garments of an encoded photo, by
    number, each as the pictures that it was searched with."""

    def __init__(self, num: int, reasons: Reasons, crops_of: Callable[[bytes], Mapping[int, list[np.ndarray]]]):
        self._num, self._reasons, self._crops_of = num, reasons, crops_of
        self._told: dict[tuple, dict[int, list[Reason]]] = {}

    def __call__(self, shown: Sequence[Shown], pictures: Mapping[str, bytes]) -> list[dict[int, list[Reason]]]:
        """Of each photo the reasons by garment's number. Those of the photos shown last time are kept, all others forgotten.
        ``pictures``: the products', by image_id; one that has left the store is explained no more."""
        keys = [(*one, self._there(one[0], pictures)) for one in shown]
        told: dict[tuple, dict[int, list[Reason]]] = {}
        for key, one in zip(keys, shown):
            told[key] = self._told[key] if key in self._told else self._of(*one, pictures)
        self._told = told
        return [told[key] for key in keys]

    def _there(self, answer: Answer, pictures: Mapping[str, bytes]) -> tuple[bool, ...]:
        return tuple(p.image_id in pictures for piece in answer.garments for p in piece.products[: self._num])

    def _of(self, answer: Answer, photo: bytes | None, pictures: Mapping[str, bytes]) -> dict[int, list[Reason]]:
        pieces = [piece for piece in answer.garments if piece.products]
        if photo is None or not pieces:
            return {}
        crops = self._crops_of(photo)
        return {piece.number: self._of_garment(piece, crops.get(piece.number, []), pictures) for piece in pieces}

    def _of_garment(self, piece: Piece, crops: Sequence[np.ndarray], pictures: Mapping[str, bytes]) -> list[Reason]:
        """For that picture of the garment, the crop or cut out, which is most like the product."""
        nearest = piece.products[: self._num]
        products = [pictures.get(p.image_id) for p in nearest], [p.title or p.product_id for p in nearest]
        told = [self._reasons(crop, *products) for crop in crops]
        return [max(of_product, key=lambda reason: reason.cosine) for of_product in zip(*told)]
