"""Encoders that were trained, in the hub's layout: config.json, model.safetensors, preprocessor_config.json, README.md.

Two kinds of config.json: ours (a backbone of timm, transformers or open_clip, and a head), and that of
yainage90/fashion-image-feature-extractor: a Swin's, whose weights are ``swin.*`` and ``embedding_layer.*``. What we train on a
Swin is written in the latter form where it can be, so the code on that model's card loads it.
"""

import json
from dataclasses import asdict
from pathlib import Path

from w2w.errors import UsageError
from w2w.models.encoder import Input

MODEL_TYPE, WEIGHTS = "w2w-encoder", "model.safetensors"
_PIL_RESAMPLE = {"bilinear": 2, "bicubic": 3}
_SWIN, _SWIN_HEAD = ("swin.", "backbone.model."), ("embedding_layer.", "head.0.")


def kind_of(config: dict, files: list[Path]) -> str | None:
    """``ours``, ``swin``, or None for a folder that some library wrote."""
    if config.get("model_type") == MODEL_TYPE:
        return "ours"
    if config.get("model_type") == "swin" and files[0].suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(files[0], "np") as weights:
            return "swin" if f"{_SWIN_HEAD[0]}weight" in set(weights.keys()) else None
    return None


def read(kind: str, config: dict, processed: Input | None, files: list[Path], name: str) -> tuple[dict, Input]:
    """Blueprint and preprocessing. ``processed``: what preprocessor_config.json says.

    Raises UsageError for a config.json that lacks something.
    """
    if kind == "swin":
        from safetensors import safe_open

        with safe_open(files[0], "np") as weights:
            after, before = weights.get_slice(f"{_SWIN_HEAD[0]}weight").get_shape()
        backbone = {"library": "transformers", "config": config}
        blueprint = {"library": "w2w", "backbone": backbone, "head": [before, after], "normalised": False}
        size_px = config["image_size"]
        # the card's transform: torchvision's Resize((size, size)), which is bilinear, whatever the processor says
        return blueprint, Input(size_px, size_px, "squash", "bilinear", processed.mean, processed.std)
    try:
        shown = config["input"]
        shape = Input(**{**shown, "mean": tuple(shown["mean"]), "std": tuple(shown["std"])})
        return {"library": "w2w", **{k: config[k] for k in ("backbone", "head", "normalised")}}, shape
    except (KeyError, TypeError) as e:
        raise UsageError(f"encoder.name={name}: its config.json lacks {e}") from e


def load(kind: str, blueprint: dict, files: list[Path], name: str):
    """The network with its weights. Raises UsageError where they are another's."""
    from safetensors.torch import load_file

    from w2w.models.network import build

    network, weights = build(blueprint), load_file(files[0])
    if kind == "swin":
        weights = {_renamed(k, (_SWIN, _SWIN_HEAD)): v for k, v in weights.items()}
    try:
        missing, strange = network.load_state_dict(weights, strict=False)
    except RuntimeError as e:
        wrong = str(e).splitlines()[-1].strip()
        raise UsageError(f"encoder.name={name}: {files[0].name} and config.json differ: {wrong}") from e
    # follows from the window's size; versions of transformers differ in whether they store it
    missing, strange = ([k for k in found if not k.endswith("relative_position_index")] for found in (missing, strange))
    if missing or strange:
        wrong = f"lacks {missing[0]!r}" if missing else f"has {strange[0]!r}"
        raise UsageError(f"encoder.name={name}: {files[0].name} {wrong}: is it of another config.json?")
    return network.eval()


def as_swin(blueprint: dict, shape: Input) -> bool:
    """Whether an encoder can be written in the published Swin form."""
    backbone = blueprint["backbone"]
    is_swin = backbone["library"] == "transformers" and backbone["config"].get("model_type") == "swin"
    plain = len(blueprint["head"]) == 2 and not blueprint["normalised"]
    return is_swin and plain and (shape.mode, shape.resample) == ("squash", "bilinear")


def save(folder: Path, network, blueprint: dict, shape: Input, card: str) -> None:
    """Writes the folder that ``--encoder.name=FOLDER`` reads. ``blueprint``: of the Embedder ``network``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    if as_swin(blueprint, shape):
        weights = {_renamed(k, (_SWIN[::-1], _SWIN_HEAD[::-1])): v for k, v in weights.items()}
        config = blueprint["backbone"]["config"] | {"embedding_size": blueprint["head"][-1]}
    else:
        config = {"model_type": MODEL_TYPE, "embedding_dim": blueprint["head"][-1], "input": asdict(shape)}
        config |= {k: blueprint[k] for k in ("backbone", "head", "normalised")}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(_processor(shape), indent=1), encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _renamed(name: str, prefixes: tuple[tuple[str, str], ...]) -> str:
    for before, after in prefixes:
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name


def _processor(shape: Input) -> dict:
    """transformers' ViTImageProcessor, as far as it can say it: it knows no padding."""
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
