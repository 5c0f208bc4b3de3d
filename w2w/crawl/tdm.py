"""Every host's /.well-known/tdmrep.json, asked for once a run: by one worker, which tells the others by way of the doorkeeper,
as with robots.txt."""

import functools
import time
from collections.abc import Sequence

from w2w.crawl.schedule import Answer, Question
from w2w.errors import Reject
from w2w.web.answers import Response
from w2w.web.doorkeeper import Exchange, Message
from w2w.web.hosts import tdm_url
from w2w.web.permission import TdmFile
from w2w.web.robots import Robots, robots_after

_WAIT_S, _POLL_S = 20.0, 0.1  # for a file that another worker is asking for


class TdmFiles:
    """What one batch of visits needs. ``ours``: the files that this worker is to ask for; ``learn`` takes their answers."""

    def __init__(self, urls: Sequence[str], run_id: str, exchange: Exchange):
        self._exchange, self._known = exchange, _known(run_id)
        self._missing = set(map(tdm_url, urls)) - set(self._known)
        self.ours = self._ask()

    def _ask(self) -> list[str]:
        """Learns what the doorkeeper knows; returns the files that it is our turn to ask for."""
        if not self._missing:
            return []
        reply = self._exchange(Message(robots_wanted=tuple(sorted(self._missing))))
        for url, file in reply.robots.items():
            self._known[url] = None if file.refusal else TdmFile(file.text.encode())
        self._missing -= set(reply.robots)
        return sorted(reply.robots_to_fetch)

    def questions(self, redirects: int) -> list[Question]:
        return [Question(url, follow=redirects) for url in self.ours]

    def learn(self, answers: Sequence[Answer]) -> None:
        """``answers``: of ``questions``, in their order."""
        found = {url: _file(answer) for url, answer in zip(self.ours, answers, strict=True)}
        for url, file in found.items():
            self._known[url] = None if file.refusal else TdmFile(file.text.encode())
        self._missing -= set(found)
        if found:
            self._exchange(Message(robots_found=found))
        until = time.monotonic() + _WAIT_S
        while self._missing and time.monotonic() < until:
            if self._ask():  # the worker that was to ask for it is gone: nobody knows
                return
            time.sleep(_POLL_S if self._missing else 0.0)

    def of(self, url: str) -> TdmFile | None:
        """The file of a URL's host; None: nobody knows what it says."""
        return self._known.get(tdm_url(url))


@functools.lru_cache(maxsize=4)
def _known(run_id: str) -> dict[str, TdmFile | None]:
    """What this process has learnt in a run, by the file's URL."""
    return {}


def _file(answer: Answer) -> Robots:
    """In the form in which the doorkeeper keeps robots.txt."""
    if isinstance(answer.result, Response):
        return Robots(answer.result.body.decode("utf-8", "replace"))
    return robots_after(answer.result) if isinstance(answer.result, Reject) else Robots()
