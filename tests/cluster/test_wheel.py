"""The wheel in an environment without the repository and the extras: packages are lent by this one, nothing is fetched."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.cluster.shops import write_shop
from w2w import schema
from w2w.extras import EXTRAS
from w2w.table import delta

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="session", autouse=True)
def ray_cluster():
    """The night starts its own."""


def done(*command: object, cwd: Path) -> str:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RAY_"))}
    result = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built as pip builds it, from a copy: what an earlier build left in the tree is not in it."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = done("git", "ls-files", "-z", "w2w", "jobs", "tests", "pyproject.toml", "README.md", "LICENSE", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "tree" / name)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--no-cache-dir", "-q", "-w", folder]
    done(sys.executable, "-m", "pip", "wheel", *options, folder / "tree", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def home(wheel) -> Path:
    """An empty folder beside an environment with the wheel in it."""
    home = wheel.parent / "home"
    home.mkdir()
    done(sys.executable, "-m", "venv", "--without-pip", "env", cwd=wheel.parent)
    python = wheel.parent / "env" / "bin" / "python"
    (packages,) = (wheel.parent / "env").glob("lib/python*/site-packages")
    # a folder that a .pth names is searched, and its own .pth files, such as that of `pip install -e`, are not read
    lent = f"{sysconfig.get_path('purelib')}\nimport sys; sys.modules.update(dict.fromkeys({list(EXTRAS)}))\n"
    (packages / "lent.pth").write_text(lent)
    done(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    found = done(python, "-c", "import w2w; print(w2w.__file__)", cwd=home)
    assert Path(found.strip()).parent == packages / "w2w"
    return home


def test_the_wheel_is_w2w_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == {"w2w"}
    listed = done("git", "ls-files", "w2w", cwd=ROOT).splitlines()
    carried = {name for name in listed if not name.endswith((".py", "README.md"))}
    assert {Path(name).suffix for name in carried} >= {".j2", ".safetensors", ".typed", ".pyi"}
    assert carried <= set(names)


def test_the_command_runs_without_the_repository(home):
    w2w, python = home.parent / "env" / "bin" / "w2w", home.parent / "env" / "bin" / "python"
    assert "nightly" in done(w2w, "--help", cwd=home)
    assert "--detector.name" in done(w2w, "detect", "--help", cwd=home)
    script = "import importlib.util as u; print([n for n in ('jobs', 'tests') if u.find_spec(n)])"
    assert done(python, "-c", script, cwd=home).strip() == "[]"


def test_a_night_runs_from_the_wheel_and_what_needs_an_extra_says_so(home):
    feed, w2w = write_shop(home / "shop", 12), home.parent / "env" / "bin" / "w2w"
    options = ["--store=store", f"--feed.uri={feed}", "--ray.num_cpus=1", "--ray.object_store_mb=256"]
    done(w2w, "nightly", *options, cwd=home)
    assert delta.count_rows(delta.open_table(str(home / "store"), schema.EMBEDDINGS)) == 12
    assert list((home / "store").rglob("CURRENT"))
    detect = [w2w, "detect", "--store=store", "--detector.name=yolo:x.pt"]
    refused = subprocess.run(detect, cwd=home, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "pip install 'w2w[yolo]'" in refused.stderr
