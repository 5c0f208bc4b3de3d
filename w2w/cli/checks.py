"""What this machine, installation and credentials can do, check by check."""

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import constants as hub

from w2w import schema, storage
from w2w.errors import UsageError
from w2w.extras import EXTRAS, installed
from w2w.garments.detector import DetectorConfig, detector_version
from w2w.garments.segmenter import SegmenterConfig, segmenter_version
from w2w.images.decode import decode
from w2w.models.config import EncoderConfig
from w2w.models.device import gpus
from w2w.models.encoder import load_encoder
from w2w.storage import cache_folder
from w2w.table import delta

_PACKAGES = (
    "ray",
    "torch",
    "transformers",
    "timm",
    "openvino",
    "faiss-cpu",
    "deltalake",
    "pyarrow",
    "pillow",
    "simplejpeg",
    "botocore",
)
# what the packages of an extra are for
_FOR = {
    "yolo": "detectors yolo:FILE.pt and segmenters ultralytics:FILE.pt (AGPL-3.0)",
    "sam": "segmenters sam:FILE.pth",
    "open_clip": "encoders open_clip:MODEL/FILE",
    "tracking": "curves while it trains: --log.tensorboard, --log.mlflow, --log.wandb",
    "postgres": "w2w export --to=postgres (LGPL-3.0)",
    "lancedb": "w2w export --to=lancedb",
    "openlineage": "events of a night: tell.openlineage",
}


def checks(
    encoder: EncoderConfig, detector: DetectorConfig, segmenter: SegmenterConfig, store: str | None
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and function; a function returns its finding, or raises. They leave nothing behind: no folder, no cache."""
    yield "machine", lambda: f"{platform.platform()}, Python {platform.python_version()}"
    yield "CPUs and memory", _size
    yield "GPU", lambda: ", ".join(gpus()) or "none: models run on the CPU"
    yield "packages", lambda: ", ".join(f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES)
    for extra in dict.fromkeys(EXTRAS.values()):
        yield f"extra {extra}", partial(_extra, extra)
    yield "decoder", _decoder
    yield "encoder", partial(_untouched, _encoder, encoder)
    yield "detector", partial(_untouched, _weights, detector, detector_version)
    yield "segmenter", partial(_untouched, _weights, segmenter, segmenter_version)
    if store:
        if storage.is_s3(store):
            keys = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_ENDPOINT_URL")
            yield "S3 settings", lambda: ", ".join(f"{k} {'set' if os.environ.get(k) else 'not set'}" for k in keys)
        yield "store can be written", lambda: _writable(store)
        yield "tables", lambda: _tables(store)


def _size() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    free = shutil.disk_usage(".").free / 2**30
    return f"{os.cpu_count()} CPUs, {pages:.0f} GB memory, {free:.0f} GB of disk free here"


def _extra(extra: str) -> str:
    modules = [module for module, name in EXTRAS.items() if name == extra]
    there, missing = [m for m in modules if installed(m)], [m for m in modules if not installed(m)]
    absent = f"{', '.join(missing)} not installed (pip install 'w2w[{extra}]')" if missing else ""
    return f"{'; '.join(filter(None, [', '.join(there), absent]))}: for {_FOR[extra]}"


def _decoder() -> str:
    import simplejpeg

    image = np.full((64, 48, 3), 200, np.uint8)
    assert decode(simplejpeg.encode_jpeg(image)).shape == (64, 48, 3)
    return "JPEG by libjpeg-turbo; PNG, WebP, GIF, AVIF, BMP and TIFF by Pillow"


def _encoder(config: EncoderConfig) -> str:
    began = time.monotonic()
    encoder = load_encoder(config)
    size_px, ready = encoder.input.size_px, time.monotonic()
    batch = np.random.default_rng(0).integers(0, 256, (32, size_px, size_px, 3), np.uint8)
    encoder.encode(batch)
    rates = []
    for _ in range(3):
        start_s = time.monotonic()
        vectors_ND = encoder.encode(batch)
        rates.append(len(batch) / (time.monotonic() - start_s))
    assert np.isfinite(vectors_ND).all()
    engine = type(encoder.engine).__name__
    return f"{encoder.name} on {engine}: {encoder.dim} dimensions, {max(rates):.0f} images/s, loaded in {ready - began:.1f} s"


def _weights(config: DetectorConfig | SegmenterConfig, version: Callable[[Any], str]) -> str:
    return f"{config.name}: its weights are there, version {version(config)}"


def _untouched(check: Callable[..., str], *arguments: Any) -> str:
    """The result of ``check`` without downloads and with the cache of converted models read-only: new conversions are
    discarded."""
    kept, before, offline = cache_folder() / "openvino", dict(os.environ), hub.HF_HUB_OFFLINE
    with tempfile.TemporaryDirectory(prefix="w2w-doctor-") as folder:
        borrowed = Path(folder, "openvino")
        borrowed.mkdir()
        for file in kept.iterdir() if kept.is_dir() else ():
            (borrowed / file.name).symlink_to(file)
        os.environ |= {"W2W_CACHE": folder, "HOME": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
        hub.HF_HUB_OFFLINE = True
        try:
            return check(*arguments)
        finally:
            hub.HF_HUB_OFFLINE = offline
            os.environ.clear()
            os.environ |= before


def _writable(store: str) -> str:
    if storage.is_s3(store):
        storage.check_writable(store, "--store")  # has no folders, so the test object leaves nothing behind
        return store
    place = Path(store)
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"--store={store}: cannot write there: {place} is {'read-only' if place.is_dir() else 'no folder'}")
    return store if place == Path(store) else f"{store}, which does not exist yet"


def _tables(store: str) -> str:
    counts = [(t.name, delta.count_rows(delta.open_table(store, t))) for t in schema.TABLES.values()]
    return ", ".join(f"{name} {n:,}" for name, n in counts)
