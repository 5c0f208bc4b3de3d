"""Running a model on many images when some do not fit in memory and some make it fail: halve the batch, or reject one image."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from w2w.errors import Reject, RejectCode

log = logging.getLogger("w2w")

Item = Any  # an image, or a tuple whose first element is one
Result = Any

_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed", "bad_alloc")
_PROBE_SIDE_PX = 64


class Batches:
    """Makes ``call(images) -> results`` (one each) safe. An item is an image, or a tuple whose first element is one.

    - Out of memory: the batch is halved, now and for all later batches; an image that does not fit alone is rejected
      (OUT_OF_MEMORY).
    - Any other error: the batch is bisected to the image that causes it (2 log2 N calls for one in N), which is rejected
      (MODEL_FAILED).
    - An error that the probe (a blank image) causes too is a bug or a broken model and no image's fault: it is raised.
    """

    def __init__(self, call: Callable[[Sequence[Item]], list[Result]], most: int, probe: Item | None = None):
        self._call, self.most = call, most
        self._probe = np.full((_PROBE_SIDE_PX, _PROBE_SIDE_PX, 3), 128, np.uint8) if probe is None else probe
        self._trusted = False

    def __call__(self, images: Sequence[Item]) -> list[Result | Reject]:
        results: list[Result | Reject] = []
        at = 0
        while at < len(images):
            size = min(self.most, len(images) - at)
            try:
                results += self._called(images[at : at + size])
            except Exception as e:  # models raise anything: narrowed down to one image below
                if not is_out_of_memory(e):
                    results += self._bisected(images[at : at + size], e)
                elif size > 1:
                    self.most = size // 2
                    log.warning("out of memory with %d images: continuing with %d", size, self.most)
                    _free()
                    continue
                else:
                    _free()
                    results.append(Reject(RejectCode.OUT_OF_MEMORY, f"an image of {_size(images[at])}: {_line(e)}"))
            at += size
        return results

    def _called(self, images: Sequence[Item]) -> list[Result]:
        results = self._call(images)
        assert len(results) == len(images), f"{len(images)} images in, {len(results)} results out"
        return results

    def _bisected(self, images: Sequence[Item], error: Exception) -> list[Result | Reject]:
        if len(images) == 1:
            self._raise_if_a_bug(error)
            return [Reject(RejectCode.MODEL_FAILED, f"{type(error).__name__}: {_line(error)}")]
        results: list[Result | Reject] = []
        for half in (images[: len(images) // 2], images[len(images) // 2 :]):
            try:
                results += self._called(half)
            except Exception as e:  # as above
                results += self._bisected(half, e) if not is_out_of_memory(e) else self(half)
        return results

    def _raise_if_a_bug(self, error: Exception) -> None:
        if self._trusted:
            return
        try:
            self._called([self._probe])
        except Exception:
            raise error from None
        self._trusted = True


def is_out_of_memory(error: BaseException) -> bool:
    """Out of memory on the device or the machine: torch and OpenVINO report it only in the message."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(w in str(error).lower() for w in _MEMORY_WORDS)


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _size(item: Item) -> str:
    image = item[0] if isinstance(item, tuple) else item
    return f"{image.shape[1]} x {image.shape[0]}"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
