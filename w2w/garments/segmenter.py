"""Segmenters that cut people out: options, files, version. SAM's family, and a default that needs no download."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from w2w import extras, ids, storage
from w2w.errors import UsageError
from w2w.garments import sam, u2net
from w2w.garments.masked import Segmenter
from w2w.models import sources, weights
from w2w.models.device import check_options, torch_device
from w2w.models.trial import try_open

CODE = 1  # bump when the same weights and config would give other masks

_PACKAGES = {"sam": "segment_anything", "ultralytics": "ultralytics"}


@dataclass(frozen=True)
class SegmenterConfig:
    """Which model cuts people out."""

    name: str = u2net.NAME
    """u2netp (no download), sam:FILE or sam:URL (segment-anything), hf:ORG/MODEL, a folder, or ultralytics:FILE.pt."""
    sha256: str | None = None
    """sha256 of the file behind sam:URL; required, and checked before anything is loaded."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda if available. u2netp runs on the CPU."""
    dtype: str = "float32"
    """Precision of the computation: float32, bfloat16 or float16."""
    threads: int = 1
    """CPU threads of one worker; set pool.num_cpus to the same."""

    def __post_init__(self):
        check_options(self, "segmenter")


def segmenter_version(config: SegmenterConfig) -> str:
    """Digest of everything that decides the masks: our code, weights and preprocessing, dtype."""
    hashes = [sources.file_sha256(f) for f in _files(config)]
    settings = {k: v for k, v in asdict(config).items() if k not in ("name", "revision", "device", "threads", "sha256")}
    return ids.digest(CODE, hashes, settings)


def try_segmenter(config: SegmenterConfig) -> None:
    """Raises UsageError for faults in the model's files, without keeping it in this process."""
    try_open(load_segmenter, config, (u2net.NAME,), segmenter_version(config))


def load_segmenter(config: SegmenterConfig) -> Segmenter:
    """Loads the weights onto the device. Raises UsageError for a missing model or device."""
    files = _files(config)
    kind = config.name.partition(":")[0]
    if config.name == u2net.NAME:
        return u2net.U2Net(files[0], config.threads)
    device = torch_device(config.device, config.threads, "segmenter.device")
    if kind == "sam":
        return sam.SegmentAnything(files[0], device, config.dtype, config.name)
    if kind == "ultralytics":
        return sam.Ultralytics(files[0], device, config.dtype, config.name)
    return sam.Transformers(files[0].parent, device, config.dtype, config.name)


def _files(config: SegmenterConfig) -> list[Path]:
    kind, _, rest = config.name.partition(":")
    if config.name == u2net.NAME:
        return [u2net.weights_file()]
    if kind in _PACKAGES:
        extras.need(_PACKAGES[kind], f"segmenter.name={config.name}")
    if kind == "sam" and "://" in rest:
        return [_fetched(rest, config.sha256)]
    if kind in _PACKAGES:
        file = storage.local(rest)
        if not os.path.isfile(file):
            raise UsageError(f"segmenter.name={config.name}: no such file: {rest!r}")
        return [file]
    if kind == "hf" and rest:
        folder = sources.download(rest, config.revision, "segmenter.name")
    else:
        folder = storage.local(config.name)
        if not os.path.isdir(folder):
            raise UsageError(
                f"segmenter.name={config.name}: neither {u2net.NAME} nor a folder, hf:ORG/MODEL, sam:FILE, sam:URL or "
                f"ultralytics:FILE.pt"
            )
    option = f"segmenter.name={config.name}"
    weights.read_json(folder / "config.json", option)
    return [folder / "config.json", *sorted(folder.glob("*processor*_config.json")), *weights.files_of(folder, option)]


def _fetched(url: str, sha256: str | None) -> Path:
    """The file behind a URL, cached under its digest; a file with another digest is deleted and refused."""
    import torch

    if not sha256 or len(sha256) != 64:
        raise UsageError(f"segmenter.name=sam:{url}: give the file's sha256 with --segmenter.sha256=... (64 hex digits)")
    target = storage.cache_folder() / "segmenters" / f"{sha256.lower()}.pth"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256.lower(), progress=False)
    except (OSError, RuntimeError, ValueError) as e:
        raise UsageError(f"segmenter.name=sam:{url}: {e}. Fetch it where there is a network and pass sam:FILE") from e
    return target
