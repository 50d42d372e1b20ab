"""
Chromium without a window, run by the tests as a program of its own.

It reads steps from its standard input, one JSON array a line, and prints what
became of each as one line of JSON.  It speaks the Chrome DevTools Protocol over
a pair of pipes: JSON texts, each with a NUL behind it.

The steps are:

  - C{["visit", URL]}: load a page.
  - C{["press", SELECTOR]}: click there with the mouse, and wait for the page
    that it leads to.
  - C{["type", SELECTOR, TEXT]}: click there, and type.
  - C{["ask", EXPRESSION]}: evaluate it in the page; a promise is waited for.
  - C{["submit", EXPRESSION]}: evaluate it, and wait for the page that it leads
    to.
  - C{["scripts", false]}: run no more scripts of pages.
  - C{["look", FILE, WIDTH, HEIGHT, SCHEME]}: a picture of what a window of this
    size shows, with the colour scheme C{light} or C{dark}.

Usage: C{browsing.py DIRECTORY [OPTION...]}, with options for Chromium.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHONE = 600
"""Windows that are narrower, in pixels, are those of telephones."""

PATIENCE = 15
"""How long nothing may happen, in seconds."""

_WHERE = """
(() => {
  const found = document.querySelector(%s);
  found.scrollIntoView({block: "center"});
  const box = found.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
})()
"""


class Failed(Exception):
    """
    Chromium did not do what it was told.
    """


class Chromium:
    """
    One running Chromium and one page in it.
    """

    def __init__(self, directory: Path, options: list[str]) -> None:
        self._log = directory / "log"
        ours, theirs = _pipes()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu"),
                    *("--no-first-run", "--disable-background-networking"),
                    *("--disable-component-update", "--disable-sync"),
                    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
                    *(f"--user-data-dir={directory / 'profile'}", *options),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=theirs,
            )
        for descriptor in theirs:
            os.close(descriptor)
        self._commands, self._answers = os.fdopen(ours[0], "wb"), os.fdopen(ours[1], "rb")
        self._number = 0
        self._unread = b""
        self._events: list[str] = []
        self._session = ""
        target = self.does("Target.createTarget", url="about:blank")["targetId"]
        attached = self.does("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.does("Page.enable")

    def does(self, method: str, **parameters: Any) -> Any:
        """
        Send a command and wait for its result.
        """
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while (message := self._next()).get("id") != self._number:
            self._events.append(message.get("method", ""))
        if "error" in message:
            raise Failed(f"{method}: {message['error']['message']}")
        return message["result"]

    def _next(self) -> Any:
        while b"\0" not in self._unread:
            if not select.select([self._answers], [], [], PATIENCE)[0]:
                raise Failed(f"nothing happens for {PATIENCE} s")
            piece = os.read(self._answers.fileno(), 1 << 16)
            if not piece:
                raise Failed(f"Chromium ended; it said:\n{self._log.read_text()[-2000:]}")
            self._unread += piece
        text, _, self._unread = self._unread.partition(b"\0")
        return json.loads(text)

    def _loads(self) -> None:
        while "Page.loadEventFired" not in self._events:
            self._events.append(self._next().get("method", ""))

    def close(self) -> None:
        """
        End Chromium.
        """
        self._session = ""
        self.does("Browser.close")
        self.process.wait(10)

    # The steps

    def visit(self, url: str) -> None:
        """
        See above.
        """
        self._events.clear()
        fault = self.does("Page.navigate", url=url).get("errorText")
        if fault:
            raise Failed(f"{url}: {fault}")
        self._loads()

    def ask(self, expression: str) -> Any:
        """
        See above.
        """
        result = self.does(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise Failed(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def _click(self, selector: str) -> None:
        x, y = self.ask(_WHERE % json.dumps(selector))
        self._events.clear()
        for kind in ("mousePressed", "mouseReleased"):
            self.does("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, selector: str) -> None:
        """
        See above.
        """
        self._click(selector)
        self._loads()

    def type(self, selector: str, text: str) -> None:
        """
        See above.
        """
        self._click(selector)
        self.does("Input.insertText", text=text)

    def submit(self, expression: str) -> None:
        """
        See above.
        """
        self._events.clear()
        self.does("Runtime.evaluate", expression=expression)
        self._loads()

    def scripts(self, allowed: bool) -> None:
        """
        See above.
        """
        self.does("Emulation.setScriptExecutionDisabled", value=not allowed)

    def look(self, file: str, width: int, height: int, scheme: str) -> None:
        """
        See above.
        """
        self.does(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < PHONE,
        )
        self.does(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        picture = self.does("Page.captureScreenshot", format="png")["data"]
        Path(file).write_bytes(base64.b64decode(picture))


def _pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    """
    Make the two pipes.

    @return: where we write and read, and where Chromium reads and writes, which
        are the numbers that it expects.
    """
    made = (*os.pipe(), *os.pipe())
    # Out of the way of 3 and 4.
    read, write, back_read, back_write = (
        fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in made
    )
    for end in made:
        os.close(end)
    os.dup2(read, 3)
    os.dup2(back_write, 4)
    os.close(read)
    os.close(back_write)
    return (write, back_read), (3, 4)


STEPS: dict[str, Callable[..., Any]] = {
    "visit": Chromium.visit,
    "press": Chromium.press,
    "type": Chromium.type,
    "ask": Chromium.ask,
    "submit": Chromium.submit,
    "scripts": Chromium.scripts,
    "look": Chromium.look,
}

if __name__ == "__main__":
    chromium = Chromium(Path(sys.argv[1]), sys.argv[2:])
    try:
        for line in sys.stdin:
            name, *words = json.loads(line)
            print(json.dumps(STEPS[name](chromium, *words)), flush=True)
    except Failed as reason:
        sys.exit(str(reason))
    finally:
        if chromium.process.poll() is None:
            chromium.close()
