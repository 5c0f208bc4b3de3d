"""Real JPEGs by the thousand on the loopback interface, for the download bench: a process of its own, started by ``serve``.

/clean/000123.jpg is a real photo with a comment of its own, so that no two are the same. /faulty/000123.jpg is the same, except
that 5 % answer 404 or 500 and 2 % drip: a byte each quarter of a second for ``DRIP_S``, and then the end, too early.
"""

import functools
import re
from contextlib import AbstractContextManager
from pathlib import Path

from w2w.wardrobe import site
from w2w.wardrobe.pages import JPEG, TEXT, Reply
from w2w.wardrobe.site import Handler, Served, Server

DRIP_S = 20.0


def fault(number: int) -> str:
    """What is wrong with /faulty/``number``: "404", "500", "drip" or nothing."""
    at = number * 37 % 200  # spread over the list
    return "404" if at < 5 else "500" if at < 10 else "drip" if at < 14 else ""


class RealImages:
    """The photos below a folder, each under as many numbers as are asked for."""

    def __init__(self, folder: Path, *_: object):
        self.files = sorted((folder / "images").glob("*.jpg")) + sorted(
            (folder.parent / "user_photos" / "images").glob("*.jpg")
        )

    @functools.cache  # noqa: B019 - lives as long as the server
    def photo(self, at: int) -> bytes:
        return self.files[at].read_bytes()

    def reply(self, path: str, query: dict[str, str], base: str) -> Reply:
        found = re.fullmatch(r"/(clean|faulty)/(\d{6})\.jpg", path)
        if not found:
            return Reply(404, b"", TEXT)
        number = int(found[2])
        if found[1] == "faulty" and (wrong := fault(number)) in ("404", "500"):
            return Reply(int(wrong), b"", TEXT)
        photo = self.photo(number % len(self.files))
        return Reply(200, photo[:2] + b"\xff\xfe\x00\x0a" + b"%08d" % number + photo[2:], JPEG)


class Dripping(Handler):
    def answer(self) -> None:
        if self.path.startswith("/faulty/") and fault(int(self.path[8:14])) == "drip":
            self.drip(self.head(200, {"Content-Type": JPEG, "Content-Length": "20000"}), b"\xff", 0.25, DRIP_S)
        else:
            super().answer()


class ImageServer(Server):
    site_type, handler_type = RealImages, Dripping


def serve(catalog: Path, log: Path) -> AbstractContextManager[Served]:
    return site.serve(catalog, log, module="tests.bench.image_server")


if __name__ == "__main__":
    site.main(server_type=ImageServer)
