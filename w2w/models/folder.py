"""Networks of our own in the hub's layout: a folder with config.json and model.safetensors."""

import json
from collections.abc import Callable
from pathlib import Path

from torch import nn

from w2w.errors import UsageError

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_network(network: nn.Module, folder: Path, settings: dict) -> None:
    """``settings``: what ``load_network`` makes the network from; plain values."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: v.contiguous().cpu() for n, v in network.state_dict().items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def load_network(folder: Path, kind: str, make: Callable[[dict], nn.Module]) -> tuple[nn.Module, dict]:
    """The network in eval mode, and its settings. Raises UsageError where the folder has none of that kind."""
    from safetensors.torch import load_file

    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if settings["model_type"] != kind:
            raise ValueError(f"config.json is of a {settings['model_type']}")
        network = make(settings)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as e:
        raise UsageError(f"{folder}: no {kind}: {str(e).splitlines()[0]}") from e
    return network.eval(), settings
