"""Recall kept by bridges from new models to EfficientNet-Lite0, and nights of re-embedding within a budget. Last line: JSON.

python -m tests.bench.bridge [--sample 1598] [--night_s 20] [--seeds 3] [--quick]

On the catalog of W2W_DATA (default ../shared/data): an index of Lite0's vectors; bridges from `w2w-fashion`, from Lite0 with
a part for colours (``--encoder.colour=.7``), and from a tiny ViT that this script makes (four blocks of 96, random weights),
which has as little in common with Lite0 as a model can. ``w2w bridge``'s figures are means over seeds, which draw other
products to fit to and measure on, with the least and the largest. Then all vectors of `w2w-fashion` are computed in nights of
--night_s, from the start of the job, and it is cut over and back.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import w2w
from w2w.errors import JobFailed
from w2w.models.config import FASHION

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("W2W_DATA", ROOT / ".." / "shared" / "data")).resolve() / "catalog"
POOL = {"workers": 1, "num_cpus": 2}


def tiny_vit(folder: Path) -> str:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 192}
    transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=64, patch_size=8)).eval().save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


def kept(store: str, encoder: dict, sample: int, seeds: int) -> dict[str, Any]:
    made = [w2w.bridge(store=store, encoder=encoder, sample=sample, seed=n, min_recall=0, pool=POOL) for n in range(seeds)]
    values = {name: [one.recall[name].value for one in made] for name in made[0].recall}
    figures = {name: [round(float(f(v)), 3) for f in (np.mean, min, max)] for name, v in values.items()}
    try:
        w2w.bridge(store=store, encoder=encoder, sample=sample, pool=POOL)
        passes = True
    except JobFailed:
        passes = False
    how = {"map": made[0].map, "queries": made[0].recall["of old"].num, "passes_the_gate": passes}
    return figures | how | {"file": made[0].bridge}


def nights(store: str, encoder: dict, night_s: float) -> list[dict]:
    """Each night's pictures and seconds, until nothing is left."""
    found: list[dict] = []
    while True:
        begun = time.monotonic()
        night = w2w.embed(store=store, encoder=encoder, pool=POOL, budget={"minutes": night_s / 60})
        found.append({"pictures": night.counts.read, "seconds": round(time.monotonic() - begun, 1), "left": night.left})
        print(found[-1], "further nights, it says:", night.runs_left, flush=True)
        if not night.left or len(found) > 50:
            return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=1598)
    parser.add_argument("--night_s", type=float, default=20.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no real images at {DATA}: set W2W_DATA")
    feed = yaml.safe_load((ROOT / "jobs" / "examples" / "catalog.yaml").read_text())["feed"] | {
        "uri": str(DATA / "products.csv")
    }
    with tempfile.TemporaryDirectory() as folder:
        store, more = f"{folder}/store", {"limit": 400} if args.quick else {}
        w2w.ingest(store=store, feed=feed, **more)
        w2w.embed(store=store, encoder={"threads": 2}, pool=POOL)
        w2w.index(store=store)
        fashion, vit = {"name": FASHION, "threads": 2}, {"name": tiny_vit(Path(folder, "vit")), "threads": 2}
        found: dict[str, Any] = {"tiny ViT": kept(store, vit, args.sample, args.seeds)}
        found["with colours"] = kept(store, {"colour": 0.7, "threads": 2}, args.sample, args.seeds)
        half = args.sample // 4  # leaves vectors of w2w-fashion to be computed at night
        found[f"{FASHION}, sample {half}"] = kept(store, fashion, half, 1)
        found["nights"] = nights(store, fashion, args.night_s)
        found[FASHION] = kept(store, fashion, args.sample, args.seeds)
        over = fashion | {"bridge": found[FASHION]["file"]}
        mixed = w2w.index(store=store, encoder=over)
        cut = w2w.index(store=store, encoder=fashion)
        back = w2w.index(store=store, rollback=True)
        found["over_and_back"] = [mixed.recall, cut.recall, back.published == mixed.published]
    for value in found.values():
        if isinstance(value, dict):
            value.pop("file", None)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
