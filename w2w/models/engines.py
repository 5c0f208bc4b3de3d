"""Engines that run a network: torch on any device, or OpenVINO on a CPU.

Measured for EfficientNet-Lite0 at 224 px on 2 cores, images/s: torch eager 18, with glibc keeping its memory 45 to 62, with
channels_last as well 80, OpenVINO 111.
"""

import atexit
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from w2w import ids
from w2w.errors import UsageError
from w2w.models.config import EncoderConfig
from w2w.models.device import on_cpu_in_float32, torch_device
from w2w.models.sources import Source
from w2w.storage import cache_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger("w2w")


def start(source: Source, config: EncoderConfig) -> "Torch | OpenVino":
    """The engine that ``config`` selects, with the network loaded."""
    if config.engine == "openvino" and (config.device == "cuda" or config.dtype != "float32"):
        raise UsageError("encoder.engine=openvino: runs on the CPU in float32; omit device and dtype, or use engine=torch")
    on_cpu = on_cpu_in_float32(config.device, config.dtype)
    if config.engine == "openvino" or (config.engine == "auto" and source.convolutional and on_cpu):
        return OpenVino(source, config)
    return Torch(source, config)


class Torch:
    """Eager torch, channels_last, autocast to ``dtype``."""

    def __init__(self, source: Source, config: EncoderConfig):
        import torch

        self._device = torch_device(config.device, config.threads, "encoder.device")
        module = pixels_module(source).to(self._device, memory_format=torch.channels_last)
        self._module, self._dtype = module, getattr(torch, config.dtype)
        self.dim = self(np.zeros((1, source.input.size_px, source.input.size_px, 3), np.uint8)).shape[1]

    def __call__(self, batch_NHWC: np.ndarray) -> np.ndarray:
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(batch_NHWC)).to(self._device, non_blocking=True)
        reduced = torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)
        with torch.inference_mode(), reduced:
            return self._module(pixels).float().cpu().numpy()


class OpenVino:
    """The network compiled for this CPU; converted once, then read from the cache without importing torch."""

    def __init__(self, source: Source, config: EncoderConfig):
        self._compiled = compile_for_cpu(_converted(source), config.threads)
        self.dim = int(self._compiled.output(0).partial_shape[1].get_length())

    def __call__(self, batch_NHWC: np.ndarray) -> np.ndarray:
        return self._compiled(np.ascontiguousarray(batch_NHWC))[0]


def load_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which would tell Google Analytics of each conversion: it falls back to a stub where that
    package is missing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # importing it raises ImportError from here on
    import openvino

    return openvino


def _writable(folder: Path) -> Path:
    """The folder, or one that lasts as long as this process where nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as e:
        log.warning("%s: %s: what is prepared is not kept; set W2W_CACHE to a folder that can be written", folder, e.strerror)
        made = tempfile.mkdtemp(prefix="w2w-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
        return Path(made)


def compile_for_cpu(model: Path, threads: int) -> Any:
    """A model file (OpenVINO's own, or ONNX) as a callable that runs on ``threads`` threads in float32."""
    core = load_openvino().Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # otherwise every worker's thread is pinned to the same first core: 73 instead of 118 images/s on 2 cores
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(core.read_model(model), "CPU", settings)


def pixels_module(source: Source) -> "torch.nn.Module":
    """The network with its normalisation in front: uint8 (N, S, S, 3) -> float (N, D)."""
    import torch

    class Pixels(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = source.network().eval()
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (source.input.mean, source.input.std))
            self.register_buffer("scale", 1 / (255 * std))
            self.register_buffer("shift", -mean / std)

        def normalised(self, pixels):
            return pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift

        def forward(self, pixels):
            return self.network(self.normalised(pixels))

    return Pixels().eval()


def _converted(source: Source) -> Path:
    """The OpenVINO file of this architecture and these weights, created on first use."""
    settings = [source.architecture, list(map(str, source.input.__dict__.values())), source.weights_sha256()]
    size_px = source.input.size_px
    return convert_once(settings, lambda: pixels_module(source), (2, size_px, size_px, 3), (-1, size_px, size_px, 3))


def convert_once(settings: list, module: Callable, example: tuple[int, ...], shape: tuple[int, ...]) -> Path:
    """The OpenVINO file of a torch module over uint8 pixels of ``shape`` (-1: any), stored under a digest of ``settings``."""
    openvino = load_openvino()
    name = f"{ids.digest(2, *settings, openvino.__version__)}.xml"  # 1: from unchecked weights
    target = cache_folder() / "openvino" / name
    if target.exists():
        return target
    target = _writable(target.parent) / name
    import torch

    log.info("preparing a network for this processor; this is done once")
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit.trace, which OpenVINO calls
        model = openvino.convert_model(module(), example_input=torch.zeros(example, dtype=torch.uint8), input=[shape])
    part = target.with_name(f"{target.stem}-{os.getpid()}.xml")
    openvino.save_model(model, part, compress_to_fp16=False)
    # the weights' file first, so that whoever sees the .xml finds its .bin
    os.replace(part.with_suffix(".bin"), target.with_suffix(".bin"))
    os.replace(part, target)
    return target
