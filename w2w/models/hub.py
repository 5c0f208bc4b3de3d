"""The hub's config.json as transformers' settings, restricted to what is in it: it may be a stranger's."""

import re
from pathlib import Path
from typing import Any

from w2w.config import nearest
from w2w.errors import UsageError
from w2w.models.weights import line

_PLAIN = re.compile(r"[\w.-]+")
_NAMES = ("architecture", "backbone", "timm_model_name")  # of a model that a library builds
# references to weights and settings elsewhere, which libraries would download
_ELSEWHERE = ("_name_or_path", "name_or_path", "transformers_weights", "checkpoint_path", "cache_dir", "pretrained")
_ELSEWHERE += ("use_pretrained_backbone", "timm_model_pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "_commit_hash")


def inside(config: dict, option: str) -> dict:
    """The config without anything that leads out of its folder: other locations, networks by address, code.

    Raises UsageError for a network that is named by an address or a path.
    """
    kept = {}
    for key, value in config.items():
        if key in _NAMES and isinstance(value, str) and not _PLAIN.fullmatch(value):
            raise UsageError(
                f"{option}: its config has {key}={value!r}, which is outside its folder: only names of timm's are built"
            )
        if key in _ELSEWHERE:
            continue
        if isinstance(value, dict):
            value = inside(value, option)
        elif isinstance(value, list):
            value = [inside(v, option) if isinstance(v, dict) else v for v in value]
        kept[key] = value
    return kept


def settings(folder: Path, config: dict, option: str, trust_remote_code: bool = False) -> Any:
    """transformers' settings of a config.json. Raises UsageError for a model that it does not know."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if "auto_map" in config and trust_remote_code:
        return AutoConfig.from_pretrained(folder, trust_remote_code=True, local_files_only=True)
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise UsageError(f"{option}: {folder / 'config.json'} has model_type={kind!r}, which transformers does not know")
    values = _with_backbone(inside(config, option))
    values.pop("auto_map", None)
    try:
        return CONFIG_MAPPING[kind].from_dict(values)
    except Exception as e:  # many classes, from type checks to lists that are too short
        raise UsageError(f"{option}: {folder / 'config.json'} is not a config of a {kind}: {line(e)}") from e


def processor(auto: str, folder: Path, option: str, **remote: Any) -> Any:
    """The processor of a folder, by one of transformers' Auto classes. Raises UsageError for one that cannot be built."""
    import transformers

    try:
        return getattr(transformers, auto).from_pretrained(folder, local_files_only=True, **remote)
    except Exception as e:  # as above
        raise UsageError(f"{option}: {folder} has no processor that transformers knows: {line(e)}") from e


def _with_backbone(values: dict) -> dict:
    """An older config's timm backbone in the newer form: transformers would ask the hub what kind of name it is."""
    more = values.get("backbone_kwargs")
    if not values.get("backbone") or values.get("backbone_config") or not more:
        return values
    more = {{"in_chans": "num_channels"}.get(k, k): v for k, v in more.items()}
    backbone = {"model_type": "timm_backbone", "backbone": values["backbone"], "features_only": True, **more}
    return {k: v for k, v in values.items() if k not in ("backbone", "backbone_kwargs")} | {"backbone_config": backbone}


def timm_name(name: object, option: str) -> str:
    """Raises UsageError for anything but a timm architecture, such as an address."""
    import timm

    if not isinstance(name, str) or not _PLAIN.fullmatch(name) or not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"{option}: timm has no such model: {name!r}.{nearest(str(name), timm.list_models())}")
    return name
