"""What the README does from Python."""

import re
import subprocess
import sys
from pathlib import Path

import polars as pl

from tests.unit.nights.nights import Shop, without_ray

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
JOBS, SCRIPT = re.findall(r"^```python\n(.*?)^```$", README, re.S | re.M)


def test_the_jobs(shop: Shop, tmp_path, monkeypatch, capsys):
    without_ray(monkeypatch)
    monkeypatch.chdir(tmp_path)
    shop.write()
    (tmp_path / "shop").symlink_to(shop.folder)
    exec(JOBS, {})
    counts, error = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0 \d{8}T\S+ 1\.0", counts)
    assert f"print(e)  # {error}\n" in JOBS


def test_the_script_of_a_notebook(shop: Shop, store: str, tmp_path):
    """Without Ray: in a process of its own."""
    assert len(SCRIPT.splitlines()) <= 25
    (tmp_path / "photos").symlink_to(shop.folder)
    (tmp_path / "stores").mkdir()
    (tmp_path / "stores" / "shop").symlink_to(store)
    script = f"{SCRIPT}\nimport sys\nassert 'ray' not in sys.modules\nfound.write_parquet('found.parquet')\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "'products'" in done.stdout
    assert "shape: (150, 5)" in done.stdout
    first = pl.read_parquet(tmp_path / "found.parquet").filter(pl.col("rank") == 1)
    right = first.filter(pl.col("photo") == pl.col("product_id").str.replace("p", "") + ".jpg")
    assert right.height == 49  # the product of the fiftieth is gone
