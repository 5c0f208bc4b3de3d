"""Models of open_clip: an architecture and a weights file, or folders as its push_to_hf_hub writes them.

From a folder only the image tower is built. If it is a timm model, as in Marqo/marqo-fashionSigLIP, timm alone builds it; other
towers need the package open_clip.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2w import extras
from w2w.config import nearest
from w2w.errors import UsageError
from w2w.models import hub, weights
from w2w.models.config import Input

if TYPE_CHECKING:
    import torch

CONFIG = "open_clip_config.json"
# the last but one: the same weights below `model.`, for transformers and the model's own code
_WEIGHTS = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin")
_TOWERS = ("visual.", "model.visual.")
# open_clip's PreprocessCfg defaults
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MODES = {"squash": "squash", "shortest": "crop"}


def read_folder(folder: Path, name: str) -> tuple[dict, Input, str]:
    """Blueprint, preprocessing and weights file. Raises UsageError for what is missing or unknown."""
    try:
        found = hub.inside(weights.read_json(folder / CONFIG, f"encoder.name={name}"), f"encoder.name={name}")
        model, shown = found["model_cfg"], found.get("preprocess_cfg", {})
        vision, embed_dim = dict(model["vision_cfg"]), model["embed_dim"]
    except (AttributeError, KeyError, TypeError) as e:
        raise UsageError(f"encoder.name={name}: {folder / CONFIG} is not a configuration of open_clip: {e}") from e
    files = [folder / f for f in _WEIGHTS if (folder / f).is_file()]
    if not files:
        raise UsageError(f"encoder.name={name}: none of {', '.join(_WEIGHTS)} in {folder}")
    mode, resample = shown.get("resize_mode", "shortest"), shown.get("interpolation", "bicubic")
    size_px = vision.get("image_size", 224)
    if mode not in _MODES or resample not in ("bicubic", "bilinear") or not isinstance(size_px, int):
        raise UsageError(f"encoder.name={name}: its {CONFIG} asks for a size or filter that w2w does not know")
    mean, std = tuple(shown.get("mean", _MEAN)), tuple(shown.get("std", _STD))
    shape = Input(size_px, size_px, _MODES[mode], resample, mean, std)
    if _of_timm(vision, size_px):
        return {"library": "timm", "architecture": vision["timm_model_name"], "pool": vision["timm_pool"]}, shape, str(files[0])
    extras.need("open_clip", f"encoder.name={name}")
    tower = {"embed_dim": embed_dim, "vision_cfg": vision, "quick_gelu": bool(model.get("quick_gelu"))}
    return {"library": "open_clip", "tower": tower}, shape, str(files[0])


def _of_timm(vision: dict, size_px: int) -> bool:
    """Whether the tower is a plain timm model, without a projection of open_clip's."""
    import timm

    name = vision.get("timm_model_name")
    if not name or vision.get("timm_proj") != "none" or vision.get("timm_pool") in ("abs_attn", "rot_attn"):
        return False
    return timm.is_model(name) and timm.get_pretrained_cfg(name).input_size[-1] == size_px


def load_tower(blueprint: dict, file: str, name: str) -> "torch.nn.Module":
    """The image tower with its weights, taken from those of the whole model.

    Raises UsageError if they belong to another model.
    """
    from w2w.models.network import build

    option = f"encoder.name={name}"
    carried = weights.read([Path(file)], option)
    network = weights.built(lambda: build(blueprint), carried, f"{option}: {file}")
    prefix = next((t for t in _TOWERS if any(k.startswith(t) for k in carried)), None)
    if prefix is None:
        raise UsageError(f"{option}: {file} has no weights of an image tower, {' or '.join(_TOWERS)}*")
    if blueprint["library"] == "timm":
        prefix += "trunk."
    tower = {k.removeprefix(prefix): v for k, v in carried.items() if k.startswith(prefix)}
    return weights.fill(network, tower, f"{option}: {file}")


def by_architecture(name: str) -> tuple[str, Input, str, Callable[[], Any]]:
    """(architecture, preprocessing, weights' file, what builds the network) of ARCHITECTURE/FILE."""
    extras.need("open_clip", f"encoder.name=open_clip:{name}")
    import open_clip

    architecture, _, file = name.partition("/")
    if architecture not in open_clip.list_models():
        raise UsageError(f"encoder.name=open_clip:{name}: no such model.{nearest(architecture, open_clip.list_models())}")
    if not Path(file).is_file():
        raise UsageError(
            f"encoder.name=open_clip:{name}: after the first '/' give the path of the weights: no such file: {file!r}"
        )
    vision = open_clip.get_model_config(architecture)["vision_cfg"]
    data = open_clip.get_model_preprocess_cfg(open_clip.create_model(architecture)) if "image_size" not in vision else {}
    size_px = vision.get("image_size") or data["size"][-1]
    shape = Input(size_px, size_px, "crop", "bicubic", open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    return architecture, shape, file, partial(_whole, architecture, file)


def _whole(architecture: str, file: str):
    import open_clip

    option = f"encoder.name=open_clip:{architecture}/{file}"
    weights.read([Path(file)], option)
    try:
        tower = open_clip.create_model(architecture, pretrained=file, weights_only=True).visual.eval()  # strict by itself
    except Exception as e:  # its own conversion of other layouts raises many classes
        raise UsageError(f"{option}: {' '.join(str(e).split())[:300]}") from e
    weights.check_finite(tower, option)
    return tower
