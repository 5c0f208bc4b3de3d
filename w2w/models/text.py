"""Text to vectors in the space of images: the text towers of CLIP, SigLIP and similar models.

Text and images must share one space, so the text goes through the same checkpoint as the images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from w2w import extras, storage
from w2w.errors import UsageError
from w2w.models import hub, open_clip_models, sources, weights
from w2w.models.config import COLOUR_DIM, EncoderConfig

_HAVE_TEXT = "hf:openai/clip-vit-base-patch32, hf:google/siglip-base-patch16-224, hf:patrickjohncyh/fashion-clip, "
_HAVE_TEXT += "hf:Marqo/marqo-fashionSigLIP, open_clip:MODEL/FILE, or a folder of such a model"
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")


Words = Callable[[str], np.ndarray]


def embed_words(config: EncoderConfig, text: str) -> np.ndarray:
    """The unit vector of one text, as ``load_words``, without keeping the tower."""
    if not text.strip():
        raise UsageError("--text is empty: say what to look for")
    return load_words(config)(text)


def load_words(config: EncoderConfig) -> Words:
    """The text tower of an encoder, on the CPU: a text to a unit vector, float32 (D,).

    Raises UsageError for an encoder without one, and for files that are missing or broken.
    """
    option = f"encoder.name={config.name}"
    if config.bridge:
        raise UsageError("--text: a bridge (encoder.bridge) is fitted to pictures, and maps no words")
    features = _features(config, option)

    def vector(text: str) -> np.ndarray:
        features_D = features(text)
        with np.errstate(invalid="ignore", divide="ignore"):
            vector_D = features_D / np.linalg.norm(features_D)
        if not np.isfinite(vector_D).all():
            raise UsageError(f"--text: {option} gave NaN or infinity for these words")
        if config.colour:  # words are compared with the model's own part alone
            vector_D = np.concatenate([vector_D, np.zeros(COLOUR_DIM, vector_D.dtype)])
        return vector_D.astype(config.store_dtype).astype(np.float32)

    return vector


def _features(config: EncoderConfig, option: str) -> Words:
    kind, _, rest = config.name.partition(":")
    if kind == "open_clip" and rest:
        architecture, _, file = rest.partition("/")
        return _of_open_clip(architecture, {"pretrained": str(storage.local(file))}, option)
    folder = sources.folder_of(config.name, config.revision)
    if folder and (folder / open_clip_models.CONFIG).is_file():
        model = weights.read_json(folder / open_clip_models.CONFIG, option).get("model_cfg")
        if not isinstance(model, dict) or (model.get("text_cfg") or {}).get("hf_model_name"):
            raise UsageError(f"--text: {option}: the text tower of its {open_clip_models.CONFIG} lies outside its folder")
        return _of_open_clip(f"local-dir:{folder}", {"pretrained_text": False}, option)
    settings = hub.inside(weights.read_json(folder / "config.json", option), option) if folder else {}
    if not folder or not isinstance(settings.get("text_config"), dict) or "vision_config" not in settings:
        raise UsageError(f"--text: {option} has no text tower. These have one: {_HAVE_TEXT}")
    return _of_transformers(folder, settings, option)


def _of_transformers(folder: Path, settings: dict, option: str) -> Words:
    import torch
    from transformers import AutoModel

    if not any((folder / file).is_file() for file in _VOCABULARIES):  # transformers would make a tokenizer without any words
        raise UsageError(f"--text: {option}: {folder} has no vocabulary for its text tower: none of {', '.join(_VOCABULARIES)}")
    tokenizer = hub.processor("AutoTokenizer", folder, option)
    known, files = hub.settings(folder, settings, option), weights.files_of(folder, option)
    where = f"{option}: {files[0]}"
    model, missing = weights.pretrained(AutoModel, known, weights.read(files, option), where)
    if not hasattr(model, "get_text_features"):
        raise UsageError(f"--text: {option} has no text tower. These have one: {_HAVE_TEXT}")
    longest = known.text_config.max_position_embeddings

    def features(text: str) -> np.ndarray:
        # padded as in training: SigLIP's tower sees the padding, CLIP's stops at the end of the text (both model cards)
        tokens = tokenizer([text], padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        with torch.inference_mode():
            found: Any = model.get_text_features(**tokens)
            return (found if isinstance(found, torch.Tensor) else found.pooler_output)[0].float().numpy()

    weights.need(model, missing, lambda: [features("a")], where)
    return features


def _of_open_clip(name: str, files: dict[str, Any], option: str) -> Words:
    extras.need("open_clip", f"--text with {option}")
    import open_clip
    import torch

    try:
        model = open_clip.create_model(name, weights_only=True, require_pretrained=True, **files).eval()
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as e:  # its own reading of configs, weights and tokenizers raises many classes
        raise UsageError(f"--text: {option}: {weights.line(e)}") from e

    def features(text: str) -> np.ndarray:
        with torch.inference_mode():
            return model.encode_text(tokenizer([text]))[0].float().numpy()

    return features
