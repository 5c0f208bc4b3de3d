"""Trained encoders in the hub's layout: config.json, model.safetensors, preprocessor_config.json, README.md.

Two kinds of config.json: ours (a backbone of timm, transformers or open_clip, and a head), and that of
yainage90/fashion-image-feature-extractor: a Swin with weights ``swin.*`` and ``embedding_layer.*``. A Swin that we train is
written in the latter form if possible, so that the code on that model's card loads it.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from w2w.errors import UsageError
from w2w.models import hub, weights
from w2w.models.config import COLOUR, Input

if TYPE_CHECKING:
    import torch

MODEL_TYPE = "w2w-encoder"
_PIL_RESAMPLE = {"bilinear": 2, "bicubic": 3}
_TOWER, _COLOURED_TOWER = "backbone.model.", "backbone.network.model."
_SWIN, _SWIN_HEAD = ("swin.", _TOWER), ("embedding_layer.", "head.0.")


def kind_of(config: dict, files: list[Path], option: str) -> str | None:
    """``ours``, ``swin``, or None for a folder that some library wrote."""
    if config.get("model_type") == MODEL_TYPE:
        return "ours"
    if config.get("model_type") == "swin" and files[0].suffix == ".safetensors":
        return "swin" if any(n.startswith(_SWIN_HEAD[0]) for n in weights.shapes(files, option)) else None
    return None


def read(kind: str, config: dict, processed: Callable[[], Input], files: list[Path], name: str) -> tuple[dict, Input]:
    """Blueprint and preprocessing. ``processed`` reads preprocessor_config.json.

    Raises UsageError if config.json lacks something.
    """
    if kind == "swin":
        shapes = weights.shapes(files, f"encoder.name={name}")
        if f"{_SWIN_HEAD[0]}weight" not in shapes:
            raise UsageError(f"encoder.name={name}: {files[0]} lacks '{_SWIN_HEAD[0]}weight'")
        after, before = shapes[f"{_SWIN_HEAD[0]}weight"]
        backbone = {"library": "transformers", "config": config}
        blueprint = {"library": "w2w", "backbone": backbone, "head": [before, after], "normalised": False}
        size_px = config["image_size"]
        # the card's transform: torchvision's Resize((size, size)), which is bilinear, whatever the processor says
        return blueprint, Input(size_px, size_px, "squash", "bilinear", processed().mean, processed().std)
    try:
        shown = config["input"]
        shape = Input(**{**shown, "mean": tuple(shown["mean"]), "std": tuple(shown["std"])})
        return {"library": "w2w", **{k: config[k] for k in ("backbone", "head", "normalised")}}, shape
    except (KeyError, TypeError) as e:
        raise UsageError(f"encoder.name={name}: its config.json lacks {e}") from e


def load(kind: str, blueprint: dict, shape: Input, files: list[Path], name: str) -> "torch.nn.Module":
    """The network with its weights. Raises UsageError if they belong to another model."""
    from torch import nn

    from w2w.models.colour import Colour, WithColour
    from w2w.models.network import Embedder, Head, build, image_tower

    option = f"encoder.name={name}"
    where, tensors = f"{option}: {files[0]}", weights.read(files, option)
    if kind == "swin":
        tensors = {_renamed(k, (_SWIN, _SWIN_HEAD)): v for k, v in tensors.items()}
    coloured = blueprint["backbone"].get("library") == COLOUR
    backbone = blueprint["backbone"]["network"] if coloured else blueprint["backbone"]
    if backbone.get("library") != "transformers":
        return weights.fill(weights.built(lambda: build(blueprint), tensors, where), tensors, where)
    # by transformers itself: names of tensors differ between its versions
    place = _COLOURED_TOWER if coloured else _TOWER
    tower = {k.removeprefix(place): v for k, v in tensors.items() if k.startswith(place)}
    settings = hub.settings(files[0].parent, backbone["config"], option)
    rest = {k: v for k, v in tensors.items() if not k.startswith(place)}
    empty = WithColour(nn.Identity(), Colour(), blueprint["backbone"]["weight"]) if coloured else nn.Identity()
    network = Embedder(empty, weights.built(lambda: Head(blueprint["head"]), rest, where), blueprint["normalised"])
    weights.fill(network, rest, where)
    filled = image_tower(settings, tower, shape.size_px, where)
    if coloured:
        network.backbone.network = filled
    else:
        network.backbone = filled
    return network.eval()


def as_swin(blueprint: dict, shape: Input) -> bool:
    """Whether an encoder can be written in the published Swin form."""
    backbone = blueprint["backbone"]
    is_swin = backbone["library"] == "transformers" and backbone["config"].get("model_type") == "swin"
    plain = len(blueprint["head"]) == 2 and not blueprint["normalised"]
    return is_swin and plain and (shape.mode, shape.resample) == ("squash", "bilinear")


def save(folder: Path, network: "torch.nn.Module", blueprint: dict, shape: Input, card: str) -> None:
    """Writes the folder that ``--encoder.name=FOLDER`` reads. ``blueprint``: of the Embedder ``network``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = _as_published(network)
    if as_swin(blueprint, shape):
        tensors = {_renamed(k, (_SWIN[::-1], _SWIN_HEAD[::-1])): v for k, v in tensors.items()}
        config = blueprint["backbone"]["config"] | {"embedding_size": blueprint["head"][-1]}
    else:
        config = {"model_type": MODEL_TYPE, "embedding_dim": blueprint["head"][-1], "input": asdict(shape)}
        config |= {k: blueprint[k] for k in ("backbone", "head", "normalised")}
    save_file(tensors, folder / weights.WEIGHTS, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(_processor(shape), indent=1), encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _as_published(network) -> dict:
    """The tensors, those of transformers under the hub's names, which all its versions read."""
    from transformers.core_model_loading import revert_weight_conversion

    from w2w.models.colour import bare
    from w2w.models.network import ImageTower

    tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    backbone = bare(network.backbone)
    if not isinstance(backbone, ImageTower):
        return tensors
    place = _TOWER if backbone is network.backbone else _COLOURED_TOWER
    tower = {k.removeprefix(place): v for k, v in tensors.items() if k.startswith(place)}
    rest = {k: v for k, v in tensors.items() if not k.startswith(place)}
    return rest | {f"{place}{k}": v for k, v in revert_weight_conversion(backbone.model, tower).items()}


def _renamed(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for before, after in prefixes:
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name


def _processor(shape: Input) -> dict:
    """transformers' ViTImageProcessor, as far as it can express it: it has no padding."""
    size = {"height": shape.size_px, "width": shape.size_px}
    if shape.mode == "crop":
        size = {"size": {"shortest_edge": shape.resize_px}, "crop_size": size, "do_center_crop": True}
    else:
        size = {"size": size}
    return size | {
        "image_processor_type": "CLIPImageProcessor" if shape.mode == "crop" else "ViTImageProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": _PIL_RESAMPLE[shape.resample],
        "rescale_factor": 1 / 255,
        "image_mean": list(shape.mean),
        "image_std": list(shape.std),
    }
