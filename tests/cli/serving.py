"""A running `mete serve` for tests: starts it on a free port, speaks HTTP to it, reads its log."""
import base64  # noqa: F401  (re-exported for tests)
import http.client
import json
import signal
import socket
import subprocess
import threading
import time

from harness import BINARY, tiny_model

HI = [{"role": "user", "content": "hello there"}]
RUNNING = "vllm:num_requests_running"


def options(context=256, parallel=4):
    return "-c", context, "-np", parallel, "--chat-template", "chatml", "--temp", "0"


class Server:
    """`with Server(*options) as server:` a server with the tiny model, ready to answer."""

    def __init__(self, *options, model=None, wait=True):
        args = [BINARY, "serve", "-m", str(model or tiny_model()), "--port", "0", "--log-format", "json"]
        self.process = subprocess.Popen([*args, *map(str, options)], stderr=subprocess.PIPE)
        self.log, self.wake = [], threading.Condition()
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        self.port = int(self.wait_for("listening")["address"].rsplit(":", 1)[1])
        if wait:
            self.wait_for("ready")

    def _read_log(self):
        for line in self.process.stderr:
            with self.wake:
                self.log.append(json.loads(line) if line.startswith(b"{") else {"event": "text", "text": line.decode()})
                self.wake.notify_all()
        with self.wake:
            self.log.append({"event": "end"})
            self.wake.notify_all()

    def wait_for(self, event, timeout=60, **fields):
        """The first log line of this event with these fields."""
        deadline = time.monotonic() + timeout
        with self.wake:
            while True:
                for line in self.log:
                    if line["event"] == event and all(line.get(k) == v for k, v in fields.items()):
                        return line
                if self.log and self.log[-1]["event"] == "end":
                    raise AssertionError(f"the server ended: {self.log}")
                if not self.wake.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no {event} {fields} in {self.log}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        self.process.stderr.close()
        reports = [line["text"] for line in self.log if "Sanitizer" in line.get("text", "")]
        if reports:
            raise AssertionError("".join(line.get("text", "") for line in self.log))

    def connect(self, timeout=60):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, body bytes)."""
        connection = self.connect()
        try:
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def get(self, path, headers=None):
        status, _, body = self.request("GET", path, headers=headers)
        return status, json.loads(body)

    def post(self, path, body, headers=None):
        status, _, data = self.request("POST", path, body, headers)
        return status, json.loads(data)

    def ok(self, path, body):
        status, data = self.post(path, body)
        if status != 200:
            raise AssertionError(f"{path}: {status} {data}")
        return data

    def stream(self, path, body):
        """The events of a stream, as (event name or None, data)."""
        status, headers, data = self.request("POST", path, {**body, "stream": True})
        if status != 200 or headers["Content-Type"] != "text/event-stream":
            raise AssertionError(f"{path}: {status} {data}")
        events = []
        for block in data.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
            if fields:
                text = fields["data"]
                events.append((fields.get("event"), text if text == "[DONE]" else json.loads(text)))
        return events

    def raw(self, data, timeout=10):
        """What comes back for these bytes until the server closes or is silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            connection.sendall(data)
            out = b""
            try:
                while chunk := connection.recv(65536):
                    out += chunk
            except (TimeoutError, ConnectionResetError):
                pass
            return out

    def metric(self, name):
        """The value of a metric, summed over its label sets."""
        _, _, body = self.request("GET", "/metrics")
        values = [float(line.rsplit(" ", 1)[1]) for line in body.decode().splitlines()
                  if line.startswith(name + "{") or line.startswith(name + " ")]
        if not values:
            raise AssertionError(f"no metric {name}")
        return sum(values)

    def wait_metric(self, name, value, timeout=30):
        deadline = time.monotonic() + timeout
        while self.metric(name) != value:
            if time.monotonic() > deadline:
                raise AssertionError(f"{name} is {self.metric(name)}, not {value}")
            time.sleep(0.02)
