"""The folders' rules, read off the import graph."""

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from w2w.extras import EXTRAS

ROOT = Path(__file__).parents[2]
# what a room may import of other rooms: those before it. The contract, which all may import, is the files of w2w itself
FLOORS = [
    {"contract"},
    {"table", "web", "images", "metrics"},
    {"engine", "report", "wardrobe"},
    {"models", "ingest"},
    {"crawl", "garments", "index"},
    {"search", "mining", "find"},
    {"training", "style", "similar", "bridge"},
    {"evaluation", "gallery", "recommend", "export", "check", "erase"},
    {"nightly"},
    {"plan"},
    {"cli"},
    {"api"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ONLY_IN = {
    "ray": {"engine"},
    "faiss": {"index"},
    "torch": {"models", "garments", "training", "mining", "engine"},
    "idna": {"web"},
    "bs4": {"crawl"},
    "deltalake": {"table"},
}
MODULE_OF = {
    "openlineage-python": "openlineage",  # distribution -> what is imported of it, where another name than its own
    "beautifulsoup4": "bs4",
    "faiss-cpu": "faiss",
    "mlflow-skinny": "mlflow",
    "open-clip-torch": "open_clip",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pyyaml": "yaml",
}
FOR_OTHERS = {"scipy"}  # transformers imports it, and does not ask for it
STARTERS = 10  # lines of a file in jobs/
SAME, WORDS = 6, 60  # lines that two files may not share, and their least length in all: brackets alone are no text


def modules() -> dict[str, Path]:
    """Dotted name -> file, of all of w2w."""
    files = sorted((ROOT / "w2w").rglob("*.py"))
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files}


MODULES = modules()


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, wherever in it: in functions and for types alone, too."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(path: Path) -> set[str]:
    """The modules of w2w among them."""
    return {n if n in MODULES else n.rpartition(".")[0] for n in imports(path) if n.startswith("w2w.")} - {"w2w"}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[1] in FLOOR else "contract"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"w2w", "w2w.__main__"}))
def test_imports_go_down(module):
    path, room = MODULES[module], room_of(module)
    assert not any(n.split(".")[0] == "jobs" for n in imports(path))
    upwards = {m for m in ours(path) if room_of(m) != room and FLOOR[room_of(m)] >= FLOOR[room]}
    assert not upwards
    for package, homes in ONLY_IN.items():
        if room not in homes:
            assert not any(n.split(".")[0] == package for n in imports(path)), f"{package} is imported only in {sorted(homes)}"


def test_only_flows_and_jobs_run_anything():
    for module, path in MODULES.items():
        name = module.rpartition(".")[2]
        if room_of(f"{module}.") not in ("engine", "cli", "api") and not name.startswith(("flow", "job")):
            assert not any(m.startswith("w2w.engine") for m in ours(path)), module
        if name == "rules":
            assert not any(m.startswith("w2w.table") for m in ours(path)), module


def test_no_file_imports_itself_by_way_of_others():
    left = {m: ours(p) & set(MODULES) - {m} for m, p in MODULES.items()}
    while free := [m for m, needs in left.items() if not needs & set(left)]:
        for m in free:
            del left[m]
    assert not left


def test_jobs_only_start_what_stands_in_w2w():
    from w2w.cli.main import HERE, JOBS, module_of

    submitted = set(JOBS) - set(HERE)
    assert {p.stem.replace("_", "-") for p in (ROOT / "jobs").glob("*.py")} == submitted
    for name in submitted:
        text = (ROOT / "jobs" / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= STARTERS
        assert f"from {module_of(name)} import Config, main" in text


def test_every_job_has_a_config_and_a_main():
    from w2w.cli.main import JOBS, module_of

    for name in JOBS:
        job = tree(MODULES[module_of(name)])
        names = {n.name for n in job.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        assert {"Config", "main"} <= names, name
        assert ast.get_docstring(job), name


def declared() -> dict[str, set[str]]:
    """Extra -> distributions that it asks for; "" for what everybody installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = {"": project["dependencies"], **project["optional-dependencies"]}
    asked = {extra: {re.match(r"[\w-]+", line)[0] for line in asked} for extra, asked in lines.items()}
    for extra, names in asked.items():
        others = {o for line in lines[extra] if line.startswith("w2w[") for o in line[4:-1].split(",")}
        asked[extra] = names.union(*(asked[other] for other in others)) - {"w2w"}
    return asked


def modules_of(distributions: set[str]) -> set[str]:
    return {MODULE_OF.get(name, name.replace("-", "_")) for name in distributions}


def foreign(top: str) -> dict[str, set[str]]:
    """Packages of others that are imported below a folder -> the files."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / top).rglob("*.py")):
        beside = {p.stem for p in path.parent.iterdir()}
        for name in {n.split(".")[0] for n in imports(path)} - sys.stdlib_module_names - {"w2w", "jobs", "tests"} - beside:
            found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    asked, used = declared(), foreign("w2w")
    base, everything = modules_of(asked[""]), modules_of(set().union(*asked.values()))
    assert not {n: files for n, files in used.items() if n not in base | set(EXTRAS)}, "pyproject.toml declares none of these"
    assert not {n: files for n, files in foreign("tests").items() if n not in everything}, "nor these, of tests"
    told = {  # a package of weights is found by its name, a parser is asked for by it
        node.value for path in MODULES.values() for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)
    }
    assert not base - set(used) - told - FOR_OTHERS, "w2w imports none of these"


def test_extras_are_imported_where_they_are_used_alone():
    asked = declared()
    assert all(module in modules_of(asked[extra]) for module, extra in EXTRAS.items())
    for path in MODULES.values():
        for node in tree(path).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            assert not {n.split(".")[0] for n in names} & set(EXTRAS), f"{path}:{node.lineno}: w2w works without it"


def test_all_has_every_package_of_the_card():
    card = "ray torch transformers ultralytics segment-anything pyarrow s3fs faiss-cpu requests beautifulsoup4 pytest"
    asked = declared()
    assert set(card.split()) <= asked[""] | asked["all"]


def test_nothing_that_everybody_installs_is_agpl():
    left, seen = declared()[""], set()
    while left := {n for n in left - seen if any(True for _ in importlib.metadata.distributions(name=n))}:
        seen |= left
        needs = [r for n in left for r in importlib.metadata.requires(n) or [] if "extra ==" not in r]
        left = {re.match(r"[\w.-]+", r)[0] for r in needs}
    assert len(seen) > 60
    known = {n: importlib.metadata.metadata(n).json for n in [*seen, "ultralytics"]}
    said = {n: f"{m.get('license_expression')} {m.get('classifier')} {m.get('license', '')[:2000]}" for n, m in known.items()}
    assert [n for n, text in said.items() if re.search("AGPL|Affero", text)] == ["ultralytics"]


def bare(function: ast.FunctionDef, method: bool) -> list[str]:
    """Parameters without a type, and "return" where it has none; a constructor returns nothing."""
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
    given = function.args
    positional = [*given.posonlyargs, *given.args][1 if method and not static else 0 :]
    named = [*positional, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    missing = [a.arg for a in named if a.annotation is None]
    return missing + (["return"] if function.returns is None and function.name != "__init__" else [])


def test_public_functions_say_their_types():
    for module, path in MODULES.items():
        inside = [(node, n) for node in tree(path).body if isinstance(node, ast.ClassDef) for n in node.body]
        for owner, node in [(None, n) for n in tree(path).body] + inside:
            private = any(n.name.startswith("_") and n.name != "__init__" for n in (owner, node) if hasattr(n, "name"))
            if isinstance(node, ast.FunctionDef) and not private:
                assert not bare(node, owner is not None), f"{module}.{f'{owner.name}.' if owner else ''}{node.name}"


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
    for node in ast.walk(tree(path)):
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
        for node in ast.walk(tree(path)):
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


def test_no_six_lines_stand_in_two_files():
    """What two rooms need is written once, below both. Imports and blank lines are no code."""
    places: dict[tuple[str, ...], set[str]] = {}
    for path in [*MODULES.values(), *(ROOT / "jobs").rglob("*.py")]:
        lines = [s for s in map(str.strip, path.read_text(encoding="utf-8").splitlines()) if s]
        code = [s for s in lines if not s.startswith(("import ", "from "))]
        for run in zip(*(code[i:] for i in range(SAME))):
            if sum(map(len, run)) >= WORDS:
                places.setdefault(run, set()).add(str(path.relative_to(ROOT)))
    assert not {" / ".join(run): sorted(files) for run, files in places.items() if len(files) > 1}
