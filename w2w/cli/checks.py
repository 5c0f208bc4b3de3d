"""What this machine, installation and credentials can do, check by check."""

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator

import numpy as np

from w2w import schema, storage
from w2w.extras import EXTRAS, installed
from w2w.images.decode import decode
from w2w.models.config import EncoderConfig
from w2w.models.device import gpus
from w2w.models.encoder import load_encoder
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


def checks(encoder: EncoderConfig, store: str | None) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and function; a function returns what it found, or raises."""
    yield "machine", lambda: f"{platform.platform()}, Python {platform.python_version()}"
    yield "CPUs and memory", _size
    yield "GPU", lambda: ", ".join(gpus()) or "none: models run on the CPU"
    yield "packages", lambda: ", ".join(f"{p} {importlib.metadata.version(p)}" for p in _PACKAGES)
    yield "extras", lambda: ", ".join(m for m in EXTRAS if installed(m)) or "none installed"
    yield "decoder", _decoder
    yield "encoder", lambda: _encoder(encoder)
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


def _writable(store: str) -> str:
    storage.check_writable(store, "--store")
    return store


def _tables(store: str) -> str:
    counts = [(t.name, delta.count_rows(delta.open_table(store, t))) for t in schema.TABLES.values()]
    return ", ".join(f"{name} {n:,}" for name, n in counts)
