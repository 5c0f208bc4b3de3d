"""README's commands, run in its order in one folder, as they are written: what they name (a shop's site, a model of the hub, a
public data set) is put there first, small; trainings are given few steps."""

import json
import re
import shlex
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

import w2w
from tests.cluster.test_readme import COMMANDS, README, ROOT
from tests.unit.mining.test_sets import item
from tests.unit.models.test_encoder import save
from w2w.cli import main as command_line
from w2w.garments.stage import to_jpeg
from w2w.wardrobe import site
from w2w.wardrobe.lookbook import write_lookbook
from w2w.wardrobe.shop import write_shop

pytestmark = [pytest.mark.soak, pytest.mark.timeout(2400)]

_PRODUCTS, _POSTS = 60, 24
_LOOP = ["--train.steps=2", "--train.warmup_steps=1", "--train.measure_every=2", "--train.checkpoint_every=2"]
_PHOTOS = [f"--detector.{o}" for o in ("epochs=1", "height_px=96", "width_px=96", "val_share=0.3")]
# by the beginning of a command: what is said more, because this shop is small or on this machine
MORE = {
    "w2w crawl": ["--fetch.allow_private_hosts=[127.0.0.1]", "--politeness.requests_per_s=null"],
    "w2w train detector": _PHOTOS,
    "w2w compare": ["--tolerance=0.99"],  # B is of random weights here
    **{f"w2w train {recipe} ": _LOOP for recipe in ("encoder", "head", "outfits", "siamese")},
}
LEFT_OUT = (
    "make",
    "w2w init",
    "w2w nightly  --config jobs/examples",
    "w2w evaluate --config jobs/examples",
    "w2w bridge",
    "w2w find photos --store=S --encoder.name=w2w-fashion",
)  # CI itself, test_init, test_readme, test_bridge: this shop is too small for one


@pytest.fixture(scope="module", autouse=True)
def ray_cluster():
    """The first command starts Ray; the others find it started."""
    yield
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder, and the site that stands for https://shop.example."""
    folder = tmp_path_factory.mktemp("readme")
    shop = write_shop(folder / "shop", 1, _PRODUCTS, _POSTS)
    shutil.copytree(ROOT / "jobs" / "examples", folder / "jobs" / "examples")
    with site.serve(folder / "shop", folder / "requests.jsonl") as server:
        profile = site.PROFILE.format(url=server.url)
        (folder / "jobs" / "examples" / "profile-shop.yaml").write_text(profile)
        night = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.S)[1])
        night |= {"store": "S", "feed": {"uri": str(folder / "shop" / "products.csv"), "full": True}}
        (folder / "night.yaml").write_text(yaml.safe_dump(night))
        (folder / "S").symlink_to("stores/shop")  # README crawls into stores/shop, and calls it S from there on
        (folder / "stores" / "shop").mkdir(parents=True)
        (folder / "store").symlink_to("stores/shop")
        (folder / "photos").symlink_to("shop/posts")
        save(folder / "model", "vit")
        (folder / "gone.txt").write_text("product w1-000002\n")
        photo = min((folder / "photos").glob("*.jpg")).name
        (folder / "campaign.csv").write_text(f"photo,products\nphotos/{photo},w1-000001\n")
        (folder / "golden.csv").write_text("product_id,expected\nw1-000003,w1-000004\n")
        _annotations(folder / "shop" / "posts", folder / "instances_attributes_train2020.json")
        _street_to_shop(folder / "DIR")
        write_lookbook(folder / "lookbook", 1, 12)
        yield folder, server.url
    assert shop.num_queries


def _annotations(photos: Path, file: Path) -> None:
    """Boxes of Fashionpedia's classes on the street photos, which lie beside the file."""
    names, images, records = ["shirt, blouse", "pants", "shoe"], [], []
    for number, photo in enumerate(sorted(photos.glob("*.jpg"))[:16]):
        shutil.copyfile(photo, file.parent / photo.name)
        height, width = cv2.imread(str(photo)).shape[:2]
        images.append({"id": number, "file_name": photo.name, "width": width, "height": height})
        boxes = [[width // 4, height * part // 4, width // 2, height // 5] for part in (1, 2, 3)]
        records += [{"image_id": number, "category_id": i, "bbox": box, "iscrowd": 0} for i, box in enumerate(boxes)]
    listed = [{"id": i, "name": name} for i, name in enumerate(names)]
    records = [{"id": i} | record for i, record in enumerate(records)]
    file.write_text(json.dumps({"images": images, "categories": listed, "annotations": records}))


def _street_to_shop(root: Path) -> None:
    """DeepFashion2: pairs of a customer's photo and the shop's."""
    rng = np.random.default_rng(0)
    for pair in range(1, 7):
        for kind, number in (("user", 2 * pair), ("shop", 2 * pair + 1)):
            for part, data in (
                ("annos", json.dumps({"source": kind, "pair_id": pair, "item1": item(1)}).encode()),
                ("image", to_jpeg(rng.integers(0, 256, (120, 90, 3), np.uint8))),
            ):
                place = root / "train" / part / f"{number:06d}.{'json' if part == 'annos' else 'jpg'}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)


def words_of(command: str, folder: Path, url: str) -> list[str]:
    """The change of models goes the other way: this store has the default's vectors from the first."""
    command = command.replace("https://shop.example/p/1", f"{url}/p/w1-000001").replace("https://shop.example", url)
    command = re.sub(r"hf:[\w.-]+/[\w.-]+", str(folder / "model"), command)
    command = command.replace("'{Topwear: top, Shoes: shoes}'", "'{top: top, bottom: bottom, shoes: shoes}'")
    command = command.replace("s3://bucket/search", str(folder / "search")).replace("availability in_stock", "price ..500")
    command = re.sub(r"^w2w (embed|index) S --encoder.name=w2w-fashion", r"w2w \1 S --encoder.name=efficientnet-lite0", command)
    command = command.replace("photo.jpg", str(min((folder / "photos").glob("*.jpg"))))
    if command.startswith("w2w recommend"):
        command = _with_products(command, folder)
    command = command.replace("--workers.num_workers=4 --workers.num_gpus=1", "--workers.num_workers=1")  # no GPU here
    more = [word for beginning, words in MORE.items() if command.startswith(beginning) for word in words]
    if "--published" in command:  # whose steps are those of the source
        more = [word for word in more if not word.startswith("--train.")]
    return shlex.split(command)[1:] + more


def _with_products(command: str, folder: Path) -> str:
    """SKU,SKU,SKU are a top, a bottom and shoes."""
    products = w2w.open(str(folder / "S")).table("products").polars(current=True)
    kinds = dict(zip(products["category"], products["product_id"]))
    outfit = [kinds[kind] for kind in ("top", "bottom", "shoes")]
    return command.replace("SKU,SKU,SKU", ",".join(outfit)).replace("SKU", outfit[0])


def test_every_command_does_its_work(folder, monkeypatch, capsys):
    place, url = folder
    monkeypatch.chdir(place)
    failed = []
    for command in (c for c in COMMANDS if not c.startswith(LEFT_OUT)):
        if "--evaluate=FOLDER" in command:  # what the command before it has trained
            newest = max(place.rglob("model.safetensors"), key=lambda p: p.stat().st_mtime_ns)
            command = command.replace("FOLDER", str(newest.parent))
        started = time.monotonic()
        monkeypatch.setattr("sys.argv", ["w2w", *words_of(command, place, url)])
        try:
            command_line.main()
            code = 0
        except SystemExit as e:
            code = e.code or 0
        said = capsys.readouterr()
        with capsys.disabled():
            print(f"{time.monotonic() - started:5.0f} s, exit {code}: {command}", flush=True)
        if code:
            failed.append(f"{command}: exit {code}\n{said.out[-1500:]}{said.err[-1500:]}")
    assert not failed, "\n\n".join(failed)
