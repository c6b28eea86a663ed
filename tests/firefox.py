"""Debian's Firefox, driven over Marionette: its own protocol, JSON over a socket.

Playwright drives a Firefox of its own only; readers have this one.
"""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("firefox-esr", "firefox")
ARGUMENTS = ["--headless", "--marionette", "--remote-allow-system-access", "--no-remote"]
PREFERENCES = {
    "marionette.port": 0,  # a free one, which it writes into its profile
    "app.update.auto": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
}
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Escape": "\ue00c", "ArrowRight": "\ue014"}
# the window is never narrower than a toolbar: the page's own frame is
RESIZE = """
const [width, height] = arguments;
const { style } = gBrowser.selectedBrowser;
for (const [side, size] of [["width", width], ["height", height]]) {
  for (const name of [side, `min-${side}`, `max-${side}`]) style.setProperty(name, `${size}px`);
}
"""


def installed() -> str | None:
    """The path of the Firefox of this machine, None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Firefox:
    """A headless Firefox with a fresh profile. Use it as a context: leaving ends it."""

    def __init__(self, path: str, wait: float = 60):
        self._folder = tempfile.TemporaryDirectory(prefix="firefox-")
        profile = Path(self._folder.name)
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
        (profile / "user.js").write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [path, *ARGUMENTS, "--profile", str(profile)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._ids = itertools.count(1)
        self._socket = self._connect(profile / "MarionetteActivePort", time.monotonic() + wait)
        self._stream = self._socket.makefile("rb")
        self._read()  # it greets
        self.version = self.ask("NewSession")["capabilities"]["browserVersion"]

    def __enter__(self) -> Firefox:
        return self

    def __exit__(self, *failure) -> None:
        self._stream.close()
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)
        self._folder.cleanup()

    def _connect(self, port: Path, until: float) -> socket.socket:
        while time.monotonic() < until and self._process.poll() is None:
            if port.exists() and port.read_text().strip():
                return socket.create_connection(("127.0.0.1", int(port.read_text())), timeout=60)
            time.sleep(0.05)
        self._process.kill()
        raise RuntimeError("Firefox did not open its port")

    def _read(self):
        """One message: its length, a colon, JSON."""
        digits = b""
        while (byte := self._stream.read(1)) != b":":
            digits += byte
        return json.loads(self._stream.read(int(digits)))

    def ask(self, command: str, **given):
        """A command of WebDriver, and its answer. RuntimeError says what Firefox refuses."""
        name = command if ":" in command else f"WebDriver:{command}"
        message = json.dumps([0, next(self._ids), name, given]).encode()
        self._socket.sendall(str(len(message)).encode() + b":" + message)
        _, _, error, result = self._read()
        if error:
            raise RuntimeError(f"{command}: {error['error']}: {error['message']}")
        return result.get("value", result) if isinstance(result, dict) else result

    def resize(self, width: int, height: int) -> None:
        """The size of the page, in CSS pixels."""
        self.ask("Marionette:SetContext", value="chrome")
        self.ask("ExecuteScript", script=RESIZE, args=[width, height])
        self.ask("Marionette:SetContext", value="content")
        self.until(f"innerWidth === {width}")

    def open(self, address: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.ask("Navigate", url=address)

    def evaluate(self, expression: str, *args):
        """The value of an expression in the page, promises awaited; `args` are `arguments`."""
        script = f"return Promise.resolve({expression})"
        return self.ask("ExecuteScript", script=script, args=list(args))

    def until(self, expression: str, wait: float = 10) -> None:
        """Wait until an expression holds. AssertionError when it never does."""
        end = time.monotonic() + wait
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Keys, as a reader presses them."""
        ways = ("keyDown", "keyUp")
        strokes = [{"type": way, "value": KEYS.get(key, key)} for key in keys for way in ways]
        self.ask("PerformActions", actions=[{"type": "key", "id": "keyboard", "actions": strokes}])
