"""The model card that stands beside a trained encoder."""

from collections.abc import Mapping
from dataclasses import asdict

from w2w.models.encoder import EncoderConfig
from w2w.training.config import LoopConfig
from w2w.training.encoders.config import LearnConfig

_DEFAULT = "efficientnet-lite0"


def model_card(
    base: EncoderConfig,
    learn: LearnConfig,
    loop: LoopConfig,
    facts: Mapping[str, object],
    figures: Mapping[str, object],
    git_revision: str | None,
) -> str:
    """Markdown with the hub's header: what it is, from what data and how it was trained, how good it is, its licence."""
    ours = base.name == _DEFAULT
    header = ["---", *(["license: apache-2.0"] if ours else []), "library_name: w2w", "pipeline_tag: image-feature-extraction"]
    lines = [*header, "---", "# Street-to-shop encoder", ""]
    lines += [f"{base.name} with a head of {learn.head.dims[-1]} dimensions; vectors have length 1. "]
    lines += ["Use: `w2w embed --encoder.name=FOLDER`.", "", "## Data", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "## Figures on test pairs, whose products were not in training", ""]
    lines += [f"- {name}: {value}" for name, value in figures.items()]
    weights = "EfficientNet-Lite0, ImageNet weights, Apache-2.0" if ours else f"that of {base.name}: see its card"
    lines += ["", "## Licence", "", f"Weights: {weights}. Also that of the pictures it learnt from.", "", "## Settings", ""]
    for name, settings in (("learn", learn), ("train", loop)):
        lines += [f"- {name}.{key}: {value}" for key, value in asdict(settings).items()]
    return "\n".join([*lines, f"- git revision: {git_revision}"]) + "\n"
