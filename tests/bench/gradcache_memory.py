"""Peak memory of a training step against the batch's size, whole and in chunks (GradCache). Last line: JSON.

python -m tests.bench.gradcache_memory [--sizes 8 32 128] [--chunk 8] [--quick]

Each figure is of a process of its own: two steps of the default encoder (frozen statistics, as in training) on pictures that
are there already; what is counted is the peak of its resident memory above that before the first step.
"""

import argparse
import json
import multiprocessing
import resource

import numpy as np

MB = 2**20


def measure(pairs: int, chunk: int, results) -> None:
    import torch

    from w2w.models import sources
    from w2w.training.encoders.config import LearnConfig
    from w2w.training.encoders.recipe import Batch, EncoderRecipe

    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = sources.find("efficientnet-lite0", None, False)
    config = LearnConfig(batch_pairs=pairs, chunk=chunk)
    recipe = EncoderRecipe(config, source, _rows(2), [], 0)
    recipe.train_mode(recipe.network)
    side = source.input.size_px
    pictures = torch.randint(0, 256, (2 * pairs, side, side, 3), dtype=torch.uint8)
    batch = Batch(pictures, torch.arange(pairs), torch.arange(pairs), None, None)
    optimizer = torch.optim.AdamW(recipe.network.parameters())
    before = _resident()
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        sum(recipe.losses(recipe.network, batch).values()).backward()
        optimizer.step()
    results.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / MB)


def _rows(count: int):
    from tests.cluster.paired import jpeg
    from w2w.training.encoders.pairs import Row

    rng = np.random.default_rng(0)
    pictures = [jpeg(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(count)]
    return [Row(p, p, i, i) for i, p in enumerate(pictures)]


def _resident() -> int:
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


def peak(pairs: int, chunk: int) -> int:
    """MB."""
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    process = spawn.Process(target=measure, args=(pairs, chunk, results))
    process.start()
    found = results.get(timeout=1800)
    process.join()
    return round(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 128], help="pairs of a batch")
    parser.add_argument("--chunk", type=int, default=8, help="pictures")
    parser.add_argument("--quick", action="store_true", help="sizes 4 and 16, chunk 4")
    options = parser.parse_args()
    sizes, chunk = ([4, 16], 4) if options.quick else (options.sizes, options.chunk)
    chunked = {str(n): peak(n, chunk) for n in sizes}
    whole = {str(n): peak(n, 0) for n in sizes[:2]}  # the largest would not fit
    growth = round(chunked[str(sizes[-1])] / chunked[str(sizes[0])], 2)
    result = {"chunk": chunk, "chunked_mb": chunked, "whole_mb": whole, "batch_growth": sizes[-1] / sizes[0]}
    print(json.dumps({"name": "gradcache memory", **result, "memory_growth": growth}))


if __name__ == "__main__":
    main()
