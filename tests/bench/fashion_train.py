"""Makes the weights that w2w carries for colours, again: w2w/models/weights/colour.safetensors.

python -m tests.bench.fashion_train [--folder FOLDER] [--out w2w/models/weights]

What was computed of the pictures stays in --folder: a killed run goes on from there. Rows of split `train` alone are learnt
from (fashion_rows.py), and none of `views`.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.bench.fashion_rows import PLAIN, TRAIN, Rows, computed, read_real
from w2w.memory import keep_memory
from w2w.models.colour import Colour, seen_as
from w2w.models.config import COLOUR_DIM, COLOUR_FILE, EncoderConfig
from w2w.models.encoder import Encoder, load_encoder

LEARNT_FROM = ("user_photos", "catalog")


def colour_roots(rows: Rows, variant: str, encoder: Encoder, folder: Path) -> np.ndarray:
    """float32 (N, 600): roots of the colours' histograms."""
    colour = Colour()
    colour.load_state_dict(colour.state_dict() | seen_as(encoder.input))
    mean, std = colour.mean, colour.std

    def of(pixels_NHWC: np.ndarray) -> np.ndarray:
        seen = (torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).float() / 255 - mean) / std
        with torch.inference_mode():
            return colour.roots(seen).numpy()

    return computed(rows, variant, encoder, folder, "roots", of)


def principal(sets_ND: Sequence[np.ndarray], dim: int, whitening: float) -> tuple[np.ndarray, np.ndarray]:
    """(centre (D,), projection (dim, D)) onto the first principal components of the sets, which count alike however large they
    are; each component over its variance to the power of ``whitening`` / 2."""
    wide = [s.astype(np.float64) for s in sets_ND]
    centre = np.mean([s.mean(0) for s in wide], axis=0)
    values, vectors = np.linalg.eigh(sum((s - centre).T @ (s - centre) / len(s) for s in wide) / len(wide))
    values, axes = values[::-1][:dim], vectors.T[::-1][:dim]
    axes = axes * np.sign(axes[np.arange(dim), np.abs(axes).argmax(1)])[:, None]  # else signs depend on the library
    return centre, axes / np.maximum(values, 1e-12)[:, None] ** (whitening / 2)


def train_colour(sets: dict[str, Rows], encoder: Encoder, folder: Path) -> dict[str, torch.Tensor]:
    """Half whitened: without, fully whitened, or with what other light changes weighed down, less or as much is found."""
    found = [colour_roots(sets[name], PLAIN, encoder, folder)[sets[name].of(TRAIN)] for name in LEARNT_FROM]
    centre, projection = principal(found, COLOUR_DIM, 0.5)
    return {"centre": torch.from_numpy(centre).half(), "projection": torch.from_numpy(projection).half().contiguous()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path, default=COLOUR_FILE.parent)
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    encoder, sets = load_encoder(EncoderConfig()), read_real(folder)
    save_file(train_colour(sets, encoder, folder), options.out / COLOUR_FILE.name)


if __name__ == "__main__":
    main()
