"""The folders' rules, read off the import graph."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTRACT = {"schema", "config", "errors", "ids", "storage", "memory", "shown"}
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


def defined(path: Path) -> set[str]:
    """Names that ``from module import name`` finds: what the file defines, imports or assigns at its top level, and files
    beside an ``__init__``."""
    names = {p.stem for p in path.parent.iterdir()} if path.name == "__init__.py" else set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def file_of(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split("."))
    return next((p for p in (place / "__init__.py", place.with_suffix(".py")) if p.exists()), None)


@pytest.mark.parametrize("top", ["w2w", "jobs", "tests"])
def test_every_import_finds_its_name(top):
    """Also those inside functions, which only run when somebody asks for that recipe, model or format."""
    known: dict[Path, set[str]] = {}
    for path in sorted((ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                asked = [(alias.name, "__name__") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                asked = [(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            for module, name in asked:
                if module.split(".")[0] not in ("w2w", "jobs", "tests"):
                    continue
                found = file_of(module) or ROOT.joinpath(*module.split("."))
                if found.is_dir():  # a folder of tests without an __init__
                    assert file_of(f"{module}.{name}"), f"{path.relative_to(ROOT)}:{node.lineno}: {module}.{name}"
                    continue
                assert found.exists(), f"{path.relative_to(ROOT)}:{node.lineno}: there is no {module}"
                known.setdefault(found, defined(found) | {"__name__"})
                assert name in known[found], f"{path.relative_to(ROOT)}:{node.lineno}: {module} has no {name}"
