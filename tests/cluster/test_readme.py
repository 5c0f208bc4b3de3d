"""The README's commands exist and take the options it shows; those on real images give the figures it states."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from w2w.cli.main import JOBS, module_of, posts_of_ingest

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "jobs" / "README.md", ROOT / "w2w" / "training" / "README.md"]
README = "\n".join(p.read_text(encoding="utf-8") for p in READMES)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.S | re.M)
    for line in block.splitlines()
    if not language and line.startswith(("w2w ", "make "))
]


@pytest.fixture(autouse=True, scope="session")
def ray_cluster():
    """Commands start Ray themselves."""


def test_every_command_is_found():
    assert len(COMMANDS) >= 8
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in COMMANDS:
        words = shlex.split(command)
        assert words[1] in (targets if words[0] == "make" else JOBS), command


def test_every_job_is_described():
    assert set(re.findall(r"^\| `w2w ([\w-]+)`", README, re.M)) == set(JOBS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("w2w")])
def test_options_are_understood(command, tmp_path):
    """Parsed as the job parses them, with the README's own YAML for night.yaml."""
    import importlib

    from w2w.config import parse

    (tmp_path / "night.yaml").write_text(re.search(r"```yaml\n(.*?)```", README, re.S)[1])
    words = [w.replace("night.yaml", f"{tmp_path}/night.yaml").replace("jobs/", f"{ROOT}/jobs/") for w in shlex.split(command)]
    name, *rest = posts_of_ingest(words[1:])
    job = importlib.import_module(module_of(name))
    assert isinstance(parse(job.Config, rest, "w2w"), job.Config)


def test_help_of_the_command():
    said = subprocess.run([sys.executable, "-m", "w2w", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0
    assert all(name in said.stdout for name in JOBS)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_figures_on_real_images(real_images, tmp_path):
    """The commands of 'On real images', in a store of their own, give the stated figures."""
    found = []
    for command in [c for c in COMMANDS if "--config jobs/examples" in c]:
        config = re.search(r"jobs/examples/([a-z-]+)\.yaml", command)[1]
        store = tmp_path / config.partition("-")[0].replace("photos", "catalog")
        uri = {"catalog": "catalog/products.csv", "photos": "user_photos/photos.csv"}.get(config, "views/views.csv")
        options = [f"--store={store}", f"--feed.uri={real_images / uri}"]
        done = subprocess.run(
            [sys.executable, "-m", "w2w", *shlex.split(command)[1:], *options], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found += re.findall(r"(?:recall@\d+|accuracy) +│ (0\.\d+)", done.stdout)
    stated = [
        s.strip()
        for row in re.findall(r"^\| (?:\d+ photos|the same|\d+ `back`).*\| (.*) \|$", README, re.M)
        for s in re.split(r"/|\[", row)
    ]
    stated = [s for s in stated if re.fullmatch(r"\.\d+", s)]
    assert [f"{float(f):.3f}".lstrip("0") for f in found] == stated


def test_links_lead_somewhere():
    for path in ROOT.glob("**/README.md"):
        if ".venv" not in path.parts:
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"
