"""A server of this process, for rewards that ask one."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """Answers each POST with `answer(message)`: something to send as JSON, or a status, or raw bytes; keeps what it got."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.answer, self.messages, self.headers, self.paths = answer, list[Any](), list[Any](), list[str]()
        self.released = threading.Event()  # what a slow answer waits for

    url = ""


@contextmanager
def serving(answer: Callable[[Any], Any]) -> Iterator[Server]:
    server = Server(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.messages.append(message)
            server.headers.append(dict(self.headers))
            server.paths.append(self.path)
            said = server.answer(message)
            if said is TimeoutError:
                server.released.wait()
                return
            self.send_response(said if isinstance(said, int) else 200)
            if said == 302:
                self.send_header("Location", server.url)
            self.end_headers()
            if not isinstance(said, int):
                self.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            http.shutdown()
            thread.join()
