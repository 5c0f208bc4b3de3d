"""Networks prepared for the CPU: kept where that is possible, and nobody is told of it."""

import importlib

import numpy as np
import pytest
import torch

from w2w.models import engines


class Sum(torch.nn.Module):
    def forward(self, pixels):
        return pixels.float().sum(dim=(1, 2, 3))[:, None]


def prepared():
    return engines.convert_once(["sum"], Sum, (2, 4, 4, 3), (-1, 4, 4, 3))


def test_openvino_tells_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path))
    prepared()
    for part in ("convert_impl", "main", "telemetry_utils", "utils"):
        used = importlib.import_module(f"openvino.tools.ovc.{part}")
        assert used.tm.__name__ == "openvino.tools.ovc.telemetry_stub", part


@pytest.mark.parametrize("there", [False, True])
def test_a_cache_that_cannot_be_written_is_not_needed(tmp_path, monkeypatch, caplog, there):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path))
    kept = prepared() if there else None
    monkeypatch.setattr(
        engines.tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(OSError(30, "Read-only file system"))
    )
    caplog.clear()
    file = prepared()
    assert (file == kept) is there
    assert ("Read-only file system" in caplog.text and "set W2W_CACHE" in caplog.text) is not there
    assert engines.compile_for_cpu(file, 1)(np.ones((1, 4, 4, 3), np.uint8))[0].item() == 48
    assert there or not list(tmp_path.glob("openvino/*"))
