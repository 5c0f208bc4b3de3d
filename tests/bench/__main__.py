"""Runs every benchmark, one after the other, and prints their JSON lines: python -m tests.bench [--quick]"""

import os
import subprocess
import sys
from pathlib import Path

QUESTIONS = (
    "embed_throughput",
    "fashion_cost",
    "detect_throughput",
    "find_latency",
    "no_change",
    "index_vs_faiss",
    "index_vs_autofaiss",
    "crawl_vs_img2dataset",
    "crawl_growth",
    "cutout_iou",
    "explain_faithful",
    "outfit_growth",
    "recommend_rule",
    "pair_growth",
    "mining_growth",
    "outfit_rule",
    "ddp_throughput",
    "gradcache_memory",
    "recipes",
    "real_gain",
    "gallery",
)

for question in QUESTIONS:
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    # the scripts share index_vectors.py, and import jobs and w2w
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(root)])}
    command = [sys.executable, str(here / f"{question}.py"), *sys.argv[1:]]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    lines = done.stdout.strip().splitlines()
    print(lines[-1] if done.returncode == 0 and lines else f"{question}: failed", flush=True)
