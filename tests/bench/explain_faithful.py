"""Do explanations name the patches that count? Hiding the top tenth of a query's patches lowers its cosine to the result; that
is measured against hiding as many at random. Last line: JSON.

python -m tests.bench.explain_faithful [--encoder NAME] [--pairs 60] [--quick]

Pairs: another view of a product on a model, and its main view, of the test split of `views` in W2W_DATA (default
../shared/data). A patch is hidden under the picture's mean colour. Intervals: 95 %, bootstrap over products. Without --encoder
three are asked: the default, and a small ViT and CLIP with random weights, which the script saves itself: their figures say
that the way to ask such a network is right, not that it looks at clothes.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from w2w.images.decode import decode
from w2w.metrics.retrieval import bootstrap
from w2w.models.config import EncoderConfig
from w2w.models.encoder import load_encoder
from w2w.models.explain import load_explainer

DATA = Path(os.environ.get("W2W_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
SHARE = 0.1
_DRAWS = 8  # random choices of patches that are averaged
_TINY = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}


def tiny(kind: str, folder: Path) -> str:
    """A ViT or CLIP with random weights, 64 px, 8 x 8 patches."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    tower = {**_TINY, "image_size": 64, "patch_size": 8}
    if kind == "ViT":
        model = t.ViTModel(t.ViTConfig(**tower))
    else:
        text = t.CLIPTextConfig(**_TINY, vocab_size=99, bos_token_id=1, eos_token_id=2)
        vision = t.CLIPVisionConfig(**tower)
        model = t.CLIPModel(t.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32))
    model.eval().save_pretrained(folder)
    t.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return str(folder)


def view_pairs(most: int) -> list[tuple[str, bytes, bytes]]:
    """Product, another view, main view: one of each product and colour, a fixed choice."""
    with open(DATA / "views" / "views.csv", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "test"]
    main = {(r["sku"], r["colour"]): r["image"] for r in rows if r["view"] == "main"}
    others = {(r["sku"], r["colour"]): r["image"] for r in rows if r["view"] != "main" and (r["sku"], r["colour"]) in main}
    chosen = np.random.default_rng(0).permutation(len(others))[:most]
    keys = [sorted(others)[i] for i in chosen]
    return [(sku, *((DATA / "views" / f[sku, c]).read_bytes() for f in (others, main))) for sku, c in keys]


def hidden(picture: np.ndarray, patches: np.ndarray, side: int) -> np.ndarray:
    """The picture with these of its ``side`` x ``side`` patches, numbered row by row, under its mean colour."""
    mask = np.zeros(side * side, bool)
    mask[patches] = True
    at = np.minimum(np.arange(len(picture)) * side // len(picture), side - 1)
    return np.where(mask.reshape(side, side)[at][:, at, None], picture.mean((0, 1)).round(), picture).astype(np.uint8)


def drops(config: EncoderConfig, pairs: list[tuple[str, bytes, bytes]]) -> tuple[np.ndarray, bool]:
    """(N, 2): how far the cosine falls without the top tenth of the query's patches, and without as many others; and whether
    the explanation is exact."""
    encoder, explain = load_encoder(config), load_explainer(config)
    rng, found, exact = np.random.default_rng(1), [], True
    for _, *images in pairs:
        query, result = (encoder.prepare(decode(image)) for image in images)
        (told,) = explain(query, [result])
        side, exact = len(told.query), exact and told.exact
        num = max(1, round(SHARE * side * side))
        chosen = [np.argsort(-told.query, axis=None)[:num], *(rng.permutation(side * side)[:num] for _ in range(_DRAWS))]
        vectors = encoder.encode(np.stack([result, query, *(hidden(query, patches, side) for patches in chosen)]))
        cosines = vectors[1:] @ vectors[0]
        found.append((cosines[0] - cosines[1], cosines[0] - cosines[2:].mean()))
    return np.array(found), exact


def measured(name: str, config: EncoderConfig, pairs: list[tuple[str, bytes, bytes]]) -> dict:
    """Of one encoder: mean drops, their difference with its interval, and how often the top tenth counts for more."""
    found, exact = drops(config, pairs)
    gained = found[:, 0] - found[:, 1]
    low, high = bootstrap(gained, np.random.default_rng(2), np.array([sku for sku, *_ in pairs]))
    return {
        "encoder": name,
        "exact": exact,
        "pairs": len(pairs),
        "top_tenth": round(float(found[:, 0].mean()), 4),
        "random_tenth": round(float(found[:, 1].mean()), 4),
        "difference": round(float(gained.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "right_way": round(float((gained > 0).mean()), 3),
    }


def all_three(most: int, threads: int = 1) -> list[dict]:
    """The default encoder, and a small ViT and CLIP."""
    pairs, device = view_pairs(most), "cpu"
    with tempfile.TemporaryDirectory() as folder:
        names = {"efficientnet-lite0": "efficientnet-lite0"}
        names |= {f"{kind}, random weights": tiny(kind, Path(folder, kind)) for kind in ("ViT", "CLIP")}
        return [measured(n, EncoderConfig(where, device=device, threads=threads), pairs) for n, where in names.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--quick", action="store_true", help="8 pairs")
    options = parser.parse_args()
    if not (DATA / "views" / "views.csv").exists():
        sys.exit(f"no views at {DATA}: set W2W_DATA")
    most = 8 if options.quick else options.pairs
    if options.encoder:
        found = [measured(options.encoder, EncoderConfig(options.encoder), view_pairs(most))]
    else:
        found = all_three(most)
    print(json.dumps({"name": "explanations: hidden patches", "share": SHARE, "encoders": found}))


if __name__ == "__main__":
    main()
