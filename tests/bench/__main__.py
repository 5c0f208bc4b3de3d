"""Runs every benchmark, one after the other, and prints their JSON lines: python -m tests.bench [--quick]"""

import subprocess
import sys
from pathlib import Path

QUESTIONS = ("embed_throughput", "no_change", "index_vs_faiss", "index_vs_autofaiss")

for question in QUESTIONS:
    script = Path(__file__).with_name(f"{question}.py")
    environment_path = [str(script.parent), str(script.parents[2])]
    code = f"import sys, runpy; sys.path[:0] = {environment_path!r}; sys.argv[0] = {str(script)!r}; runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
    print(done.stdout.strip().splitlines()[-1] if done.returncode == 0 and done.stdout.strip() else f"{question}: failed", flush=True)
