"""The page on a port, a rater who reads its HTML and posts forms, and a browser."""

import contextlib
import html
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest

from tests.limits import HANG

NEEDED = [pytest.importorskip(name, reason="the extra `serve` is not installed") for name in ("uvicorn", "starlette")]
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


class Served:
    """The page of `works` for {token: rater}, in a thread, on a port that is free."""

    def __init__(self, works, tokens, here=True):
        import uvicorn

        from alignzoo.label.page import Page

        self.port = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.port.getsockname()[1]}"
        # uvicorn's own logging would close all the process's handlers, and absl's then closes its stream, pytest's capture
        quiet = {"log_config": None, "log_level": "error"}
        settings = uvicorn.Config(Page(works, tokens, here).app, **quiet, lifespan="off", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.port]}, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join()
        self.port.close()


class Seen:
    """What came: status, headers, and what the page shows."""

    def __init__(self, status, headers, text):
        self.status, self.headers, self.text = status, headers, text
        texts = re.findall(r'<div class="text (?:plain|written)"[^>]*>(.*?)</div>', text, re.DOTALL)
        self.prompt, *self.completions = map(html.unescape, texts or [""])
        self.item, self.view = (self._attribute(name) for name in ("item", "view"))
        self.undoes = (re.findall(r'name="undo" value="(\w+)"', text) or [""])[0]
        self.messages = [html.unescape(one) for one in re.findall(r'<p class="message"[^>]*>(.*?)</p>', text)]

    def _attribute(self, name):
        return (re.findall(rf'<main[^>]* data-{name}="([^"]*)"', self.text) or [""])[0]


class Visitor:
    """Who has a link."""

    def __init__(self, address, token):
        self.address, self.token = address, token

    def look(self, **headers):
        return self._send(f"{self.address}/?token={self.token}", None, headers)

    def post(self, fields, headers=(), query=""):
        body = urllib.parse.urlencode(fields, errors="surrogatepass").encode()
        return self._send(f"{self.address}/{query}", body, dict(headers))

    def say(self, item, **fields):
        return self.post({"token": self.token, "item": item, **fields})

    def undo(self, item):
        return self.post({"token": self.token, "undo": item})

    def _send(self, address, body, headers):
        request = urllib.request.Request(address, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=HANG) as reply:
                return Seen(reply.status, reply.headers, reply.read().decode())
        except urllib.error.HTTPError as error:
            return Seen(error.code, error.headers, error.read().decode())


class Command:
    """`alignzoo label --serve` in a process of its own."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "alignzoo", "label", *arguments, "--serve"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.links, self.printed = {}, []
        for line in self.process.stdout:
            self.printed.append(line)
            name, _, link = line.strip().partition(": ")
            if link.startswith("http"):
                self.links[name] = link.split("/?token=")
            if line.startswith("Ctrl-C"):
                break

    def visitor(self, name):
        return Visitor(*self.links[name])

    def end(self, number=signal.SIGINT):
        self.process.send_signal(number)
        rest, _ = self.process.communicate()
        return self.process.returncode, rest


@contextlib.contextmanager
def browser():
    """Headless Chromium, or a skip where playwright or the browser isn't there."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()
