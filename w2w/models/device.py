"""Device and precision: the options that all models share."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from w2w.errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICES, DTYPES = ("auto", "cpu", "cuda"), ("float32", "bfloat16", "float16")


def check_options(config: Any, part: str, **others: Sequence[str]) -> None:
    """Raises UsageError for a device, dtype or one of ``others`` that is not allowed, and for less than one thread."""
    for option, allowed in {**others, "device": DEVICES, "dtype": DTYPES}.items():
        if getattr(config, option) not in allowed:
            raise UsageError(f"{part}.{option}={getattr(config, option)}: must be one of {', '.join(allowed)}")
    if config.threads < 1:
        raise UsageError(f"{part}.threads={config.threads}: must be at least 1")


def on_cpu_in_float32(device: str, dtype: str) -> bool:
    """Whether these options allow OpenVINO. Avoids importing torch, which costs a worker seconds and 300 MB."""
    if dtype != "float32" or device == "cuda":
        return False
    return device == "cpu" or not os.path.exists("/dev/nvidia0")  # a CUDA device appears as a file


def torch_device(device: str, threads: int, option: str) -> "torch.device":
    """The torch device for ``device`` (cpu, cuda, auto). Raises UsageError if CUDA is requested but missing."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"{option}=cuda: torch finds no CUDA device here; use --{option}=auto, or check the driver")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if not on_gpu:
        torch.set_num_threads(threads)
    return torch.device("cuda" if on_gpu else "cpu")


def gpus() -> list[str]:
    """Name and memory of each CUDA device that torch sees."""
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{p.name}, {p.total_memory / 2**30:.0f} GB" for p in found]
