"""The model card that stands beside a trained detector."""

from collections.abc import Mapping
from dataclasses import asdict

from w2w.shown import without_secrets
from w2w.training.detectors.config import OURS, PRETRAINED, YOLO, TrainConfig, kind_of


def model_card(recipe: str, settings: TrainConfig, facts: Mapping[str, object], git_revision: str | None) -> str:
    """Markdown: what it is, from what and how it was trained, how good it is."""
    base = {OURS: "EfficientNet-Lite0 (ImageNet, Apache-2.0) as backbone", PRETRAINED: recipe, YOLO: recipe}
    lines = ["# Garment detector", "", f"Started from: {base[kind_of(recipe)[0]]}. Trained by `w2w train-detector`", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- git revision: {git_revision}", "", "## Settings", ""]
    lines += [f"- {name}: {value}" for name, value in asdict(settings).items()]
    return without_secrets("\n".join(lines) + "\n")
