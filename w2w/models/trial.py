"""Opens a model once, in a separate process, before workers start and in a dry run: faults in its files are reported at once,
and the driver keeps neither the weights nor torch in memory."""

import base64
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from w2w.errors import UsageError

_SAID = "w2w-refused:"
_opened: set[tuple[bytes, str]] = set()  # in this process: what was opened, and the version of its files


def try_open(load: Callable, config: Any, installed: tuple[str, ...], version: str = "") -> None:
    """Raises the UsageError that ``load(config)`` raises. On the CPU: the driver's machine need not have the workers' device.

    ``installed``: names of models that come with the installation, which are not tried. ``version`` of the model's files: what
    this process has opened is not opened again; "" if unknown.
    """
    if config.name in installed:
        return
    asked = base64.b64encode(pickle.dumps((load, replace(config, device="cpu", dtype="float32"))))
    if (asked, version) in _opened:
        return
    done = subprocess.run([sys.executable, "-m", "w2w.models.trial"], input=asked, capture_output=True)
    said = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith(_SAID)]
    if said:
        raise UsageError(said[-1].removeprefix(_SAID))
    if done.returncode < 0:
        raise UsageError(
            f"{config.name}: the process that opened the model was killed (signal {-done.returncode}): is there "
            "enough memory for it?"
        )
    if done.returncode:
        raise RuntimeError(f"opening {config.name} failed:\n{done.stderr.decode(errors='replace')[-4000:]}")
    if version:
        _opened.add((asked, version))


def answer(asked: bytes) -> str:
    """What the separate process says: nothing, or why the model is refused. ``asked`` comes from our own driver."""
    load, config = pickle.loads(base64.b64decode(asked))
    try:
        load(config)
    except UsageError as e:
        return _SAID + " ".join(str(e).split())
    return ""


if __name__ == "__main__":
    print(answer(sys.stdin.buffer.read()))
