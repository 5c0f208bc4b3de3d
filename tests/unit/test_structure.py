"""The folders' rules, read off the import graph."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTRACT = {"schema", "config", "errors", "ids", "storage", "memory"}
DOMAIN = {"crawl", "ingest", "images", "models", "index", "metrics", "report", "wardrobe", "garments", "training", "mining"}
# what a domain folder may import of other folders
ALLOWED = {folder: {"images", "models"} for folder in DOMAIN} | {"images": set(), "metrics": set(), "crawl": set()}
ALLOWED["mining"] = {"images", "models", "garments"}
ALLOWED["training"] = {"images", "models", "garments", "metrics"}
ONLY_IN = {
    "ray": {"runtime"},
    "faiss": {"index"},
    "torch": {"models", "garments", "training", "mining"},
    "requests": {"crawl"},
    "idna": {"crawl"},
    "bs4": {"crawl"},
    "deltalake": {"table"},
}
# what one sitting of the demo says, and a search that writes pages besides a table
LONGER_JOBS = {"demo": 200, "search": 140}


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = sorted((ROOT / "w2w").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_layers(path):
    parts = path.relative_to(ROOT / "w2w").parts
    folder = parts[0] if len(parts) > 1 else "contract"
    names = imports(path)
    ours = {n.split(".")[1] for n in names if n.startswith("w2w.")} - CONTRACT - {folder, "__version__"}
    assert not any(n.split(".")[0] == "jobs" for n in names)
    if folder == "contract" or folder == "table":
        assert not ours
    elif folder in DOMAIN:
        assert ours <= ALLOWED[folder]
    for package, homes in ONLY_IN.items():
        if folder not in homes:
            assert not any(n.split(".")[0] == package for n in names), f"{package} is imported only in {sorted(homes)}"


def test_jobs_are_thin():
    for path in (ROOT / "jobs").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGER_JOBS.get(path.stem, 105), path


def test_every_job_has_a_config_and_a_main():
    for path in (ROOT / "jobs").glob("[a-z]*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        assert {"Config", "main"} <= names, path
        assert ast.get_docstring(tree), path


def test_cluster_yaml_is_valid_for_ray():
    import json

    import jsonschema
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(yaml.safe_load((ROOT / "cluster.yaml").read_text()), schema)
