"""A headless Chromium for looking at pages, by the DevTools protocol over two pipes: no package, no port.

``python -m tests.chromium PAGE OUT`` writes screenshots at 1400 and 390 px, light and dark, and says what is wrong.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_S = 20
WIDTHS = (1400, 390)
# what a person with a screen reader, a keyboard or a phone would miss
_FAULTS = """(() => {
  const faults = [], said = (e) => (e.outerHTML || "").slice(0, 120);
  for (const e of document.querySelectorAll("img")) {
    if (!e.hasAttribute("alt")) faults.push("no alt: " + said(e));
    if (e.src && e.complete && !e.naturalWidth) faults.push("broken picture: " + said(e));
  }
  for (const e of document.querySelectorAll("a[href], button, input, select, summary, [role=img], [tabindex]")) {
    const labelled = e.labels && e.labels.length ? e.labels[0].textContent : "";
    const inside = [...e.querySelectorAll("img")].map((i) => i.alt).join("");
    const name = e.getAttribute("aria-label") || labelled || e.textContent || inside || e.title;
    if (!name.trim()) faults.push("no name: " + said(e));
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of new Set(ids.filter((id, i) => ids.indexOf(id) !== i))) faults.push("id twice: " + id);
  if (!document.documentElement.lang) faults.push("no language");
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) {
    const out = [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1);
    faults.push(`${wide} px too wide: ` + said(out.at(-1) || document.body));
  }
  return faults;
})()"""


def program() -> str | None:
    """The Chromium of this machine, if any."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


class Page:
    """One tab. ``errors``: what the console and the loader complained of; ``requests``: every address that was asked for."""

    def __init__(self, browser: "Browser", session: str):
        self._browser, self._session = browser, session
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        return self._browser.call(method, self._session, **params)

    def size(self, width: int, height: int = 900, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> float:
        """Seconds until the page has loaded."""
        self._loaded = False
        start = time.monotonic()
        if "loaderId" not in self.call("Page.navigate", url=url):  # the same page, at another #
            return time.monotonic() - start
        self._browser.until(lambda: self._loaded)
        return time.monotonic() - start

    def evaluate(self, script: str) -> object:
        """Also awaits a promise."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", "error"))
        return found["result"].get("value")

    def until(self, script: str) -> None:
        """Waits for what comes by itself: a part that is loaded, a picture, a dialog's end."""
        end = time.monotonic() + _PATIENCE_S
        while not self.evaluate(script):
            assert time.monotonic() < end, f"{script}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        code = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32}[key]
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text)

    def screenshot(self, file: Path | str, whole: bool = True) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(file).write_bytes(base64.b64decode(found["data"]))

    def faults(self) -> list[str]:
        """What is wrong with the page as it stands."""
        outside = [f"outside request: {u}" for u in self.requests if not u.startswith(("data:", "file:", "blob:"))]
        return [*self.evaluate(_FAULTS), *outside, *(f"console: {e}" for e in self.errors)]

    def heard(self, event: dict) -> None:
        params = event["params"]
        match event["method"]:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"]["exception"].get("description", "exception"))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                if not params["entry"].get("url", "").endswith("/favicon.ico"):  # browsers ask a server for it by themselves
                    self.errors.append(params["entry"]["text"])


class Browser:
    """A running Chromium; ``page()`` gives a tab."""

    def __init__(self, told: int, heard: int):
        self._told, self._heard = told, heard
        self._number, self._rest = 0, b""
        self._answers: dict[int, dict] = {}
        self._pages: dict[str, Page] = {}

    def call(self, method: str, session: str | None = None, **params: object) -> dict:
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._told, data) :]
        self.until(lambda: number in self._answers)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def until(self, happened) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not happened():
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._heard], [], [], left)[0]:
                raise TimeoutError("Chromium does not answer")
            read = os.read(self._heard, 1 << 20)
            if not read:
                raise RuntimeError("Chromium has ended")
            *messages, self._rest = (self._rest + read).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers[message["id"]] = message
                elif page := self._pages.get(message.get("sessionId", "")):
                    page.heard(message)

    def page(self, width: int = WIDTHS[0], dark: bool = False) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        page.size(width, dark=dark)
        return page


@contextmanager
def browser(host: str = "nowhere") -> Iterator[Browser]:
    """Without a network: a host that a page asks for is not found, but for this one."""
    found = program()
    assert found, "no Chromium on this machine"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        reads, told = os.pipe()
        heard, writes = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += [
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}",
        ]
        # the protocol's pipes are descriptors 3 and 4
        start = ["bash", "-c", f'exec "$0" "$@" 3<&{reads} 4>&{writes}', found, *options]
        process = subprocess.Popen(start, pass_fds=(reads, writes), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(reads), os.close(writes)
        seen = Browser(told, heard)
        try:
            yield seen
            seen.call("Browser.close")
            process.wait(10)
        finally:
            process.kill()
            process.wait()
            os.close(told), os.close(heard)


def main() -> None:
    where, out = Path(sys.argv[1]).absolute(), sys.argv[2]
    with browser() as chromium:
        for width in WIDTHS:
            for dark in (False, True):
                page = chromium.page(width, dark)
                seconds = page.open(where.as_uri())
                page.screenshot(f"{out}-{width}{'-dark' if dark else ''}.png")
                print(width, "dark" if dark else "light", f"{seconds * 1000:.0f} ms", *page.faults(), sep="\n  ")


if __name__ == "__main__":
    main()
