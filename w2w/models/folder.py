"""Saving our own networks in the hub's layout: a folder with config.json and model.safetensors."""

import json
from collections.abc import Callable
from pathlib import Path

from torch import nn

from w2w.errors import UsageError
from w2w.models import weights

CONFIG = "config.json"


def save_network(network: nn.Module, folder: Path, settings: dict) -> None:
    """``settings``: plain values from which ``load_network`` builds the network."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: v.contiguous().cpu() for n, v in network.state_dict().items()}, folder / weights.WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def load_network(folder: Path, kind: str, make: Callable[[dict], nn.Module]) -> tuple[nn.Module, dict]:
    """The network in eval mode, and its settings. Raises UsageError if the folder has none of that kind."""
    option = f"{folder}: no {kind}"
    settings = weights.read_json(folder / CONFIG, option)
    if settings.get("model_type") != kind:
        raise UsageError(f"{option}: config.json is of a {settings.get('model_type')}")
    tensors = weights.read([folder / weights.WEIGHTS], option)
    try:
        network = weights.built(lambda: make(settings), tensors, option)
    except (ValueError, KeyError, TypeError, RuntimeError) as e:
        if isinstance(e, UsageError):
            raise
        raise UsageError(f"{option}: config.json: {type(e).__name__}: {str(e).splitlines()[0]}") from e
    return weights.fill(network, tensors, option), settings
