"""Names of code: built in, of a module, of an installed package; what is none; and that two codes never share a version."""

import importlib
import json
import sys

import pytest
import torch
from safetensors.torch import save_file

from w2w import plugins
from w2w.errors import UsageError

BUILT_IN = {"plain": print, "late": "json:dumps"}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules to a folder on the path; forgets them afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    mine: set[str] = set()

    def write(**files: str) -> None:
        for name, text in files.items():
            place = tmp_path / name
            mine.add(name.partition("/")[0])
            place.parent.mkdir(exist_ok=True)
            place.with_suffix(".py").write_text(text)
        importlib.invalidate_caches()

    yield write
    for name in [m for m in sys.modules if m.partition(".")[0] in mine]:
        del sys.modules[name]
    plugins._loaded.clear()


def install(folder, name: str, **points: str) -> None:
    """A distribution with entry points of our group."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    lines = [f"{point.replace('__', '.')} = {target}" for point, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[w2w.plugins]", *lines, ""]))


def test_what_is_built_in_wins_and_is_imported_late(package, tmp_path):
    import json

    install(tmp_path, "rival", reader__plain="nowhere:nothing")
    assert plugins.find("reader", "plain", BUILT_IN) is print
    assert plugins.find("reader", "late", BUILT_IN) is json.dumps
    assert plugins.version_of("reader", "late", BUILT_IN) == ()
    plugins.check("reader", "late", {"late": "no.such:module"})  # looked at when it is used


def test_modules_and_entry_points_name_one_thing(package, tmp_path):
    package(shop="class Reader:\n    class Inner: pass\n")
    install(tmp_path, "shop", reader__shop="shop:Reader", encoder__shop="shop:Other")
    found = plugins.find("reader", "shop", BUILT_IN)
    assert found is plugins.find("reader", "shop:Reader", BUILT_IN)
    assert plugins.find("reader", "shop:Reader.Inner", BUILT_IN) is found.Inner
    assert plugins.version_of("reader", "shop", BUILT_IN) == plugins.version_of("reader", "shop:Reader", BUILT_IN)
    assert plugins.installed("reader") == {"shop": {"shop:Reader"}}
    assert [plugins.short(n) for n in ("shop:Reader", "shop")] == ["Reader", "shop"]


def test_two_packages_of_one_name_are_told(package, tmp_path):
    install(tmp_path, "one", reader__shop="one:Reader")
    install(tmp_path, "two", reader__shop="two:Reader")
    with pytest.raises(UsageError, match="kind=shop: several packages have one: name it as one:Reader, two:Reader"):
        plugins.find("reader", "shop", BUILT_IN)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plian", "feed.kind=plian: unknown. Did you mean 'plain'.* Allowed: plain, late, a folder, shop, module:attribute"),
        ("", "unknown. Allowed"),
        ("nowhere:Reader", "module 'nowhere' cannot be imported: ModuleNotFoundError"),
        ("broken:Reader", "module 'broken' cannot be imported: ZeroDivisionError"),
        ("leaves:Reader", "module 'leaves' cannot be imported: SystemExit"),
        ("needs:Reader", "module 'needs' cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        ("good:Raeder", "good has no Raeder. Did you mean 'Reader'"),
        ("good:number", "is a int; must be a class or function"),
        ("__main__:Reader", "put it into a module"),
        ("../x:y", "unknown"),
        ("x:y z", "unknown"),
        ("x:", "unknown"),
    ],
)
def test_what_is_not_there_is_a_sentence(package, tmp_path, name, said):
    package(broken="1 / 0", leaves="raise SystemExit(0)", needs="import not_there", good="class Reader: pass\nnumber = 1\n")
    install(tmp_path, "shop", reader__shop="good:Reader")
    with pytest.raises(UsageError, match=said):
        plugins.find("reader", name, BUILT_IN, ["a folder"])


def test_other_code_is_another_version(package, monkeypatch):
    parts = {"shop/__init__": "from shop.read import Reader", "shop/read": "class Reader: pass", "shop/help": "A = 1"}
    package(**parts)

    def version(name: str = "shop:Reader") -> tuple[str, ...]:
        """As a new process finds it."""
        for module in [m for m in sys.modules if m.partition(".")[0] in ("shop", "space", "lone")]:
            del sys.modules[module]
        plugins._loaded.clear()
        return plugins.version_of("reader", name, BUILT_IN)

    first, inner = version(), version("shop.read:Reader")
    assert first == version() != inner
    package(**{"shop/help": "A = 2"})  # what it may import counts
    assert version() != first
    assert version("shop.read:Reader") != inner
    package(**{"space/inner": "class Reader: pass", "space/other": ""})  # a namespace: of several packages
    alone = version("space.inner:Reader")
    package(**{"space/other": "A = 1"})
    assert version("space.inner:Reader") == alone
    version()
    package(**{"shop/help": "A = 33"})
    with pytest.raises(UsageError, match="has changed since this process loaded it"):
        plugins.version_of("reader", "shop:Reader", BUILT_IN)
    package(lone="class Reader:\n    version = '7'")
    assert version("lone:Reader") == ("lone:Reader@7",)
    package(lone="class Reader:\n    version = '7'\n    x = 1")
    assert version("lone:Reader") == ("lone:Reader@7",)
    package(lone="class Reader:\n    @property\n    def version(self): return '7'")
    assert version("lone:Reader")[0] == "lone:Reader"


def test_data_names_no_code(package, tmp_path):
    """Wherever a checkpoint's config says what to import, nothing is."""
    from w2w.garments.detector import DetectorConfig, load_model
    from w2w.models import sources

    package(evil=f"open({str(tmp_path / 'ran')!r}, 'w')\ndef make(*args): pass")
    for named in ({"model_type": "evil:make"}, {"model_type": "w2w-encoder", "backbone": {"library": "evil:make"}}):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        config = named | {"head": [4, 2], "normalised": True, "architectures": ["evil:make"], "encoder": "evil:make"}
        config |= {"input": {"size_px": 8, "resize_px": 8, "mode": "pad", "resample": "bilinear", "mean": [0], "std": [1]}}
        (folder / "config.json").write_text(json.dumps(config))
        save_file({"head.0.weight": torch.zeros(2, 4)}, folder / "model.safetensors")
        (folder / "preprocessor_config.json").write_text(json.dumps({"size": 8, "image_processor_type": "evil:make"}))
        with pytest.raises(UsageError):
            sources.find(str(folder), None, False).network()
        with pytest.raises(UsageError):
            load_model(DetectorConfig(str(folder)))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="a NoneType"):
        sources.find("evil:make", None, False)
    assert (tmp_path / "ran").exists()


def test_what_has_no_sources_has_to_say_its_version():
    with pytest.raises(UsageError, match="sys has no source file: give it a `version`"):
        plugins.version_of("reader", "sys:exit", BUILT_IN)
