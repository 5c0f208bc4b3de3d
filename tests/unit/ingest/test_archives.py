"""Image folders and tar shards: every image is found, nothing is extracted, and hostile members go no further."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.ingest import archives
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.ingest.images import load_image


def read(config: FeedConfig, batch_rows: int = 1000) -> tuple[list[dict], list[dict]]:
    batches = list(read_feed(config, batch_rows))
    return [r for b in batches for r in b.rows.to_pylist()], [r for b in batches for r in b.rejects.to_pylist()]


def shard(path: Path, members: dict[str, bytes | tarfile.TarInfo], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_image_folder(tmp_path):
    for name in ("shirts/red/1.jpg", "shirts/2.PNG", "3.webp", "shirts/notes.txt", ".hidden.jpg", "shirts/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    config = FeedConfig(uri=str(tmp_path) + "/", category_map={"Shirts": "top"})
    check_feed(config)
    rows, rejects = read(config, batch_rows=2)
    found = {r[schema.PRODUCT_ID]: r[schema.CATEGORY] for r in rows}
    assert found == {"shirts/red/1": "etc", "shirts/2": "top", "3": "etc"}
    assert [(r["code"], r["source"]) for r in rejects] == [("duplicate_key", str(tmp_path / "shirts/2.jpg"))]
    first = next(r for r in rows if r[schema.PRODUCT_ID] == "3")
    assert load_image(first[schema.IMAGE_URI], max_bytes=100) == b"3.webp"
    assert first[schema.IMAGE_FINGERPRINT] == f"6-{(tmp_path / '3.webp').stat().st_mtime_ns}"


def test_an_image_whose_name_cannot_be_told_is_one_reject(tmp_path):
    """A photo named in EUC-KR, as Korean shops' archives have them, a link to itself and a pipe beside a good one."""
    (tmp_path / "ok.jpg").write_bytes(b"x")
    with open(os.fsencode(tmp_path) + b"/\xbd\xc5.jpg", "wb") as file:
        file.write(b"x")
    os.symlink("itself.jpg", tmp_path / "itself.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "latest").symlink_to(".")
    config = FeedConfig(uri=str(tmp_path))
    check_feed(config)
    rows, rejects = read(config)
    assert [r[schema.PRODUCT_ID] for r in rows] == ["ok"]
    assert [(r["code"], r["source"].removeprefix(f"{tmp_path}/"), r["detail"]) for r in rejects] == [
        ("bad_value", "\\xbd\\xc5.jpg", "its name is not UTF-8"),
        ("bad_value", "itself.jpg", "a link that leads nowhere"),
        ("bad_value", "pipe.png", "not a plain file"),
    ]
    (tmp_path / "feed.csv").write_text("product_id,image\n1,ok.jpg\n")
    rows, rejects = read(FeedConfig(uri=str(tmp_path / "feed.csv")))
    assert (len(rows), rejects) == (1, []), "the names beside a feed's images are nobody's business"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_second_image_of_one_name_is_rejected_and_the_first_taken(tmp_path, form):
    members = dict.fromkeys(("1.jpg", "1.png", "1.json", "12.5cm.jpg", "12.9cm.jpg", "2.jpg"), b"{}")
    uri = str(shard(tmp_path / "s.tar", members | {"caf\udce9.jpg": b"x"}, form))
    rows, rejects = read(FeedConfig(uri=uri))
    assert [r[schema.IMAGE_URI].rpartition("#")[2] for r in rows] == ["1.jpg", "12.5cm.jpg", "2.jpg"]
    assert sorted((r["code"], r["source"].rpartition("#")[2]) for r in rejects) == [
        ("duplicate_key", "1.png"),
        ("duplicate_key", "12.9cm.jpg"),
        ("malformed_row", "caf\\udce9.jpg"),
    ]
    assert {r["detail"] for r in rejects if r["source"].endswith("#1.png")} == {"a second image of one name: 1.jpg was used"}


def test_a_samples_photo_is_taken_and_not_its_mask_wherever_it_stands(tmp_path):
    uri = str(
        shard(
            tmp_path / "s.tar",
            dict.fromkeys(("1.mask.png", "1.npy", "1.png", "1.seg.png", "1.json", "2.a.jpg", "v.1/3.mask.png"), b"{}"),
        )
    )
    rows, rejects = read(FeedConfig(uri=uri))
    assert [r[schema.IMAGE_URI].rpartition("#")[2] for r in rows] == ["1.png", "2.a.jpg", "v.1/3.mask.png"]
    assert (rejects, sum(b.num_aside for b in read_feed(FeedConfig(uri=uri), batch_rows=1))) == ([], 3)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_webdataset_shards(tmp_path, form):
    for n in range(2):
        members = {}
        for i in range(3):
            key = f"{n}{i}"
            members[f"{key}.jpg"] = f"image {key}".encode() * (i + 1)
            members[f"{key}.seg.png"] = b"mask"
            members[f"{key}.json"] = json.dumps({"sku": f"P{key}", "kind": "Shirt", "cost": 9.90, "caption": "é"}).encode()
            members[f"{key}.txt"] = b" a shirt \n"
        members[f"x{n}.cls"] = b"7"
        members[f"x{n}.png"] = b"no json"
        shard(tmp_path / f"s-00{n}.tar", members, form)
    config = FeedConfig(
        uri=str(tmp_path / "s-{000..001}.tar"),
        columns={"product_id": "sku", "category": "kind", "price": "cost"},
        category_map={"shirt": "top", "7": "shoes"},
    )
    check_feed(config)
    rows, rejects = read(config, batch_rows=2)
    assert rejects == []
    by_id = {r[schema.PRODUCT_ID]: r for r in rows}
    assert list(by_id) == ["P00", "P01", "P02", "x0", "P10", "P11", "P12", "x1"]
    row = by_id["P11"]
    assert (row[schema.TITLE], row[schema.CATEGORY], row[schema.PRICE]) == ("a shirt", "top", 9.9)
    assert row[schema.ATTRIBUTES] == [("caption", "é")]
    assert row[schema.IMAGE_URI] == f"{tmp_path}/s-001.tar#11.jpg"
    assert by_id["x0"][schema.CATEGORY] == "shoes"
    for key in ("00", "12"):
        row = by_id[f"P{key}"]
        data = load_image(row[schema.IMAGE_URI], row["image_offset"], row["image_size"], max_bytes=1000)
        assert data == f"image {key}".encode() * (int(key[1]) + 1)
    same, _ = read(FeedConfig(uri=str(tmp_path), columns=config.columns, category_map=config.category_map))
    assert [r[schema.ROW_DIGEST] for r in same] == [r[schema.ROW_DIGEST] for r in rows]


def test_hostile_members_are_rejected_and_nothing_is_written(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    members = {
        "ok.jpg": b"good",
        "link.jpg": special("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        "hard.jpg": special("hard.jpg", tarfile.LNKTYPE, "ok.jpg"),
        "fifo.jpg": special("fifo.jpg", tarfile.FIFOTYPE),
        "../../up.jpg": b"escape",
        "/abs.jpg": b"escape",
        "a.json": b"{broken",
        "a.jpg": b"bad metadata",
        "list.json": b"[1]",
        "list.jpg": b"bad metadata",
        "deep.json": b"[" * 100_000,
        "deep.jpg": b"bad metadata",
        "big.json": b'{"title": "' + b"x" * archives._MAX_METADATA_BYTES + b'"}',
        "big.jpg": b"bad metadata",
        "lonely.json": b"{}",
        "late.jpg": b"also good",
    }
    shard(folder / "s.tar", members)
    before = sorted(tmp_path.rglob("*"))
    rows, rejects = read(FeedConfig(uri=str(folder / "s.tar")))
    assert [r[schema.PRODUCT_ID] for r in rows] == ["ok", "late"]
    assert {r["source"].rpartition("#")[2]: r["code"] for r in rejects} == {
        "link.jpg": "malformed_row",
        "hard.jpg": "malformed_row",
        "fifo.jpg": "malformed_row",
        "../../up.jpg": "malformed_row",
        "/abs.jpg": "malformed_row",
        "a": "malformed_row",
        "list": "malformed_row",
        "deep": "malformed_row",
        "big": "too_many_bytes",
        "lonely": "missing_field",
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_shard_keeps_what_came_before(tmp_path):
    path = shard(tmp_path / "s.tar", {f"{i}.jpg": b"x" * 600 for i in range(10)})
    data = bytearray(path.read_bytes())
    data[5 * 1536 : 5 * 1536 + 400] = b"\xff" * 400
    path.write_bytes(data)
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert [r[schema.PRODUCT_ID] for r in rows] == ["0", "1", "2", "3", "4"]
    assert [(r["code"], r["key"]) for r in rejects] == [("malformed_row", str(path))]


def test_header_that_claims_gigabytes_is_not_read(tmp_path):
    info = special("x", tarfile.XHDTYPE)
    info.size = 8 * 1024**3 - 1
    path = tmp_path / "s.tar"
    path.write_bytes(shard(path, {"0.jpg": b"x"}).read_bytes()[:1024] + info.tobuf(tarfile.USTAR_FORMAT) + bytes(10240))
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert [r[schema.PRODUCT_ID] for r in rows] == ["0"]
    assert "header of" in rejects[0]["detail"]


def test_file_that_is_no_tar_is_one_reject(tmp_path):
    path = tmp_path / "s.tar"
    path.write_bytes(b"<html>not found</html>" * 100)
    rows, rejects = read(FeedConfig(uri=str(path)))
    assert rows == []
    assert [r["code"] for r in rejects] == ["malformed_row"]


def test_expand():
    assert archives.expand("a/x-{008..011}.tar") == [f"a/x-{n}.tar" for n in ("008", "009", "010", "011")]
    assert archives.expand("{0..1}/{1..2}.tar") == ["0/1.tar", "0/2.tar", "1/1.tar", "1/2.tar"]
    assert archives.expand("a.tar") == ["a.tar"]
    for bad in ("{a..b}.tar", "{5..1}.tar", "{}.tar", "{0..999999999}.tar"):
        with pytest.raises(UsageError, match="not a range"):
            archives.expand(bad)


def test_missing_shard_of_a_pattern_is_named(tmp_path):
    shard(tmp_path / "s-0.tar", {"0.jpg": b"x"})
    with pytest.raises(UsageError, match=r"no such file: .*s-1\.tar"):
        check_feed(FeedConfig(uri=str(tmp_path / "s-{0..2}.tar")))
