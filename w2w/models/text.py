"""Words to vectors among those of images: the text towers of CLIP, SigLIP and their kin.

One space has to hold both, so the words go through the very checkpoint that made the images' vectors.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from w2w.errors import UsageError
from w2w.models import hub, sources, weights
from w2w.models.config import EncoderConfig

if TYPE_CHECKING:
    import torch

_WITH_TEXT = (
    "hf:openai/clip-vit-base-patch32, hf:google/siglip-base-patch16-224, hf:patrickjohncyh/fashion-clip, or a folder of one"
)


def embed_words(config: EncoderConfig, text: str) -> np.ndarray:
    """The unit vector of a text, float32 (D,). Loads the text tower and lets it go.

    Raises UsageError for an encoder without a text tower, and for files that are missing or broken.
    """
    if not text.strip():
        raise UsageError("--text is empty: say what to look for")
    option = f"encoder.name={config.name}"
    folder = sources.folder_of(config.name, config.revision)
    settings = hub.inside(weights.read_json(folder / "config.json", option), option) if folder else {}
    if not isinstance(settings.get("text_config"), dict) or "vision_config" not in settings:
        raise UsageError(f"--text: {option} has no text tower that w2w reads. These have one: {_WITH_TEXT}")
    features_D = _features(folder, settings, text, option, config.trust_remote_code)
    vector_D = features_D / np.linalg.norm(features_D)
    if not np.isfinite(vector_D).all():
        raise UsageError(f"--text: {option} gave NaN or infinity for these words")
    return vector_D.astype(config.store_dtype).astype(np.float32)


def _features(folder: Path, settings: dict, text: str, option: str, trust_remote_code: bool) -> np.ndarray:
    import torch
    from transformers import AutoModel

    tokenizer = hub.processor("AutoTokenizer", folder, option)
    files = weights.files_of(folder, option)
    known = hub.settings(folder, settings, option, trust_remote_code)
    where = f"{option}: {files[0]}"
    model, missing = weights.pretrained(AutoModel, known, weights.read(files, option), where)
    if not hasattr(model, "get_text_features"):
        raise UsageError(f"--text: {option} has no text tower that w2w reads. These have one: {_WITH_TEXT}")
    # padded as it was trained: SigLIP's tower sees the padding, CLIP's masks it (Zhai et al. 2023, section 4; its model card)
    longest = known.text_config.max_position_embeddings
    tokens = tokenizer([text], padding="max_length", truncation=True, max_length=longest, return_tensors="pt")

    def features() -> "torch.Tensor":
        found: Any = model.get_text_features(**tokens)
        return found if isinstance(found, torch.Tensor) else found.pooler_output

    with torch.inference_mode():
        weights.need(model, missing, lambda: [features()], where)
        return features()[0].float().numpy()
