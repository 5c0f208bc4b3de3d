"""Runs benchmarks one after the other and prints the JSON line of each: python -m tests.bench [NAME ...] [options]

Without names, those that answer a question of jobs/README. Options, such as --quick, go to every one of them. Exit code 1
where one failed, 2 for a name that is none.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

QUESTIONS = (
    "embed_throughput",
    "fashion_cost",
    "detect_throughput",
    "find_latency",
    "no_change",
    "index_vs_faiss",
    "index_vs_autofaiss",
    "filtered_search",
    "crawl_vs_img2dataset",
    "crawl_growth",
    "cutout_iou",
    "explain_faithful",
    "outfit_growth",
    "recommend_memory",
    "recommend_rule",
    "similar_growth",
    "night_growth",
    "index_scale",
    "plan_check",
    "pair_growth",
    "mining_growth",
    "outfit_rule",
    "ddp_throughput",
    "gradcache_memory",
    "recipes",
    "real_gain",
    "gallery",
)
_HERE = Path(__file__).parent


def benches() -> list[str]:
    """Every script of this folder that can be run."""
    scripts = {f.stem for f in _HERE.glob("*.py") if "\ndef main() -> " in f.read_text(encoding="utf-8")}
    return sorted(scripts)


def run(question: str, options: Sequence[str]) -> str | None:
    """The last line that a benchmark prints; None if it failed."""
    root = str(_HERE.parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    command = [sys.executable, "-m", f"tests.bench.{question}", *options]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None


def main(words: Sequence[str]) -> int:
    """Runs the benchmarks named before the first option; returns the exit code."""
    first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    names, options = words[:first] or QUESTIONS, words[first:]
    if unknown := sorted(set(names) - set(benches())):
        print(f"no such benchmark: {', '.join(unknown)}. There are: {', '.join(benches())}", file=sys.stderr)
        return 2
    failed = False
    for name in names:
        line = run(name, options)
        failed |= line is None
        print(line or f"{name}: failed", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
