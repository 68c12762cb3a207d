"""The browser's side of chat.py: one page, its data, and the OpenAI API, on this machine only; standard library alone.

    GET  /                          the page                GET  /api/character      who it is, and the stages
    POST /api/answer                a turn, as JSON lines   GET  /api/learned        curves, steps of sample grids
    GET  /v1/models, /v1/models/coco                        GET  /api/grid/sft/100   a sample grid
    POST /v1/chat/completions       POST /v1/images/generations

One thread, the one that called `serve`, asks the model. Every request has a thread of its own, which only reads, waits
and writes. Requests are answered in order of arrival. What a request says is never part of a path.
"""
import base64
import hashlib
import json
import queue
import re
import secrets
import select
import socket
import sys
import threading
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from runtime.cli import UserError
from web import openai_api, page_api
from web.line import Job, Line, Refused, Stopped

PAGE = Path(__file__).with_name("page.html")
BODY, PATIENCE = 8 * 2 ** 20, 10                # bytes of a request, and seconds to send it
TALKS, CONNECTIONS = 64, 64                     # talks that are remembered, clients at once
HOSTS = ("127.0.0.1", "localhost", "[::1]")


# ---- the server ------------------------------------------------------------------------------------------------------

class Server(ThreadingHTTPServer):
    """`new_talk(persona, keep, **options)` makes a chat.Conversation."""
    daemon_threads = True

    def __init__(self, stages, port: int, new_talk):
        self.stages, self.new_talk, self.line, self.ended = stages, new_talk, Line(), threading.Event()
        self.talks, self.lock = OrderedDict(), threading.Lock()         # talks by a secret that only their pages know
        self.free = threading.BoundedSemaphore(CONNECTIONS)
        page = PAGE.read_bytes()
        script = re.search(rb"<script>(.*?)</script>", page, re.DOTALL)[1]
        self.page, self.script_hash = page, base64.b64encode(hashlib.sha256(script).digest()).decode()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request, client_address):
        if self.free.acquire(blocking=False):
            return super().process_request(request, client_address)
        self.shutdown_request(request)              # too many at once

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), OSError):        # a client that left or was too slow is no news
            super().handle_error(request, client_address)

    def talk(self, key: str):
        """-> the key of a talk, and the talk; a new one if the key is not known."""
        with self.lock:
            if key not in self.talks:
                key = secrets.token_urlsafe(16)
                self.talks[key] = self.new_talk()
            self.talks.move_to_end(key)
            while len(self.talks) > TALKS:
                self.talks.popitem(last=False)
            return key, self.talks[key]


class Handler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0), so that nothing of one request can be taken for another."""
    server_version, sys_version, timeout = "chat", "", PATIENCE
    server: Server

    def handle(self) -> None:
        # The socket's own timeout starts anew with every byte: this one ends a request that trickles in.
        self.reading = threading.Timer(self.timeout, self.hang_up)
        self.reading.daemon = True
        self.reading.start()
        try:
            super().handle()
        finally:
            self.reading.cancel()

    def hang_up(self) -> None:
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def log_message(self, *arguments) -> None:
        pass

    def do_GET(self) -> None:
        self.respond(page_api.get_routes(self.server) | openai_api.get_routes(self.server))

    def do_POST(self) -> None:
        self.respond(page_api.POST | openai_api.POST)

    def do_PUT(self) -> None:
        self.respond(None)
    do_HEAD = do_OPTIONS = do_DELETE = do_PATCH = do_PUT

    def respond(self, routes: dict | None) -> None:
        try:
            self.check_origin()
            if routes is None:
                raise Refused(405, "only GET and POST are answered here")
            route = routes.get(self.path.partition("?")[0])
            if route is None:
                raise Refused(404, "there is nothing here")
            route(self)
        except (Refused, UserError, Stopped) as error:
            self.send_json(*self.problem(error))
            if isinstance(error, Refused):
                self.read_rest()

    def check_origin(self) -> None:
        """No other page may talk to this server: neither openly (Origin), nor by a name that it points here (Host)."""
        host = self.headers.get_all("Host", [])
        if len(host) != 1 or re.sub(r":\d+$", "", host[0]) not in HOSTS:
            raise Refused(403, "this server answers to 127.0.0.1 and localhost only")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host[0]:
            raise Refused(403, "requests of other pages are refused")

    def body(self) -> dict:
        """The JSON object that was sent."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length):
            raise Refused(411, "Content-Length is missing")
        if int(length) > BODY:
            raise Refused(413, f"more than {BODY} bytes are not taken")
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "send application/json")
        raw = self.rfile.read(int(length))
        self.reading.cancel()
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON") from None
        if len(raw) < int(length) or not isinstance(value, dict):
            raise Refused(400, "the body is not a JSON object")
        return value

    def read_rest(self) -> None:
        """A client that is still sending would never see why it was refused if the connection were closed now."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1)
        end, left = time.monotonic() + 2, 4 * BODY
        while left > 0 and time.monotonic() < end and (piece := self.connection.recv(65536)):
            left -= len(piece)

    # -- answers --
    def send_head(self, status: int, kind: str, length: int | None = None) -> None:
        self.reading.cancel()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if status == 405:
            self.send_header("Allow", "GET, POST")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy",
                         f"default-src 'none'; script-src 'sha256-{self.server.script_hash}'; "
                         "style-src 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
                         "form-action 'none'; frame-ancestors 'none'")
        self.end_headers()

    def send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_head(status, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), "application/json", status)

    @staticmethod
    def problem(error: Exception) -> tuple[dict, int]:
        """-> what went wrong in the form that OpenAI's clients read, and the HTTP status."""
        status = error.args[0] if isinstance(error, Refused) else 500 if isinstance(error, Stopped) else 400
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": str(error.args[-1]), "type": kind, "param": None, "code": None}}, status

    def send_line(self, value: dict) -> None:
        """One of several JSON objects, each on a line of its own."""
        self.wfile.write(json.dumps(value).encode() + b"\n")

    def send_event(self, value: dict) -> None:
        """One server-sent event."""
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")

    def events(self, work, waiting=lambda place: None):
        """What `work` emits, as it comes. While others are served first, waiting(place) is called. A client that goes
        away ends the work."""
        job = Job(work)
        self.server.line.join(job)
        told = 0
        try:
            while True:
                try:
                    event = job.events.get(timeout=0.25)
                except queue.Empty:
                    if self.client_left():
                        return
                    place = self.server.line.place(job)
                    if place != told:
                        waiting(place)
                    told = place
                    continue
                if event is None:
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            job.cancelled = True

    def client_left(self) -> bool:
        readable = select.select([self.connection], [], [], 0)[0]
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)


def serve(stages, port: int, new_talk) -> None:
    """Until Ctrl-C. Raises UserError if the port cannot be had."""
    try:
        server = Server(stages, port, new_talk)
    except OSError as error:
        raise UserError(f"--port {port}: {error.strerror}; choose another") from None
    print(f"{stages.introduction()}\nhttp://127.0.0.1:{server.server_port}/ is the page, /v1 there the OpenAI API; "
          "Ctrl-C ends", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        server.line.work(server.ended)
    finally:
        server.shutdown()
        server.server_close()
