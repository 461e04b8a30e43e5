"""What every row needs: a server, the load generator, a WebSocket client and signed requests, figures of a process.

Standard library only; nothing of Relay is used but its programs.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
APP, KEY, SECRET = "1", "reliability-key", "of-these-rows-alone"
KIB, MIB = 1 << 10, 1 << 20


def clean_environment(**more):
    """The environment without settings of Relay, which a test run or a shell may have, and without the admin API, whose
    default port belongs to nobody here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return {**kept, "RELAY_ADMIN_LISTEN": "off", **more}


class Options:
    """What the command line of `run` set."""

    quick = False
    io = "uring"
    minutes = None
    binaries = pathlib.Path(os.environ.get("RELIABILITY_BINARIES", TARGET / "release"))

    @classmethod
    def pick(cls, whole, quick):
        """The figure of a whole run, or of a quick one that only shows that the command works."""
        return quick if cls.quick else whole


def raise_descriptors():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def take_core(core):
    """Keeps this process, and what it starts, on one core where there are several."""
    if os.cpu_count() > 1:
        os.sched_setaffinity(0, {core})


class Server:
    """`relay serve` on free ports with a data directory of its own, on core 0 while it has one shard."""

    def __init__(self, *flags, shards=1, descriptors=None, prefix=(), settings=(), listen="127.0.0.1:0"):
        self.directory = tempfile.TemporaryDirectory(prefix="relay-reliability-")
        self.data = os.path.join(self.directory.name, "data")
        self.log_path = os.path.join(self.directory.name, "log")
        self.shards = shards
        command = [*prefix, str(Options.binaries / "relay"), "serve", "--data", self.data]
        command += ["--listen", listen, "--metrics-listen", "127.0.0.1:0"]
        command += ["--shards", str(shards), "--io", Options.io, *flags]

        def prepare():
            os.sched_setaffinity(0, range(1 if shards == 1 else os.cpu_count()))
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        app = {"RELAY_APP_ID": APP, "RELAY_APP_KEY": KEY, "RELAY_APP_SECRET": SECRET}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, preexec_fn=prepare,
                env=clean_environment(**app),
            )
        line = self.process.stdout.readline().decode()
        found = re.search(r"listening on ([\d.]+):(\d+) .*health on [\d.]+:(\d+)", line)
        if not found:
            raise RuntimeError(f"the server did not start: {line}{self.log()[-600:]}")
        self.host, self.port, self.health = found[1], int(found[2]), int(found[3])
        self.pid = self.process.pid
        for name, value in settings:
            self.cli("app", "set", APP, f"{name}={value}")
        if settings:
            time.sleep(2.2)  # The bound within which a running server applies changes (configuration.md).

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.directory.cleanup()

    def cli(self, *arguments):
        command = [str(Options.binaries / "relay"), *arguments, "--data", self.data]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def lives(self):
        return self.process.poll() is None

    def metrics(self):
        """The page of metrics."""
        connection = http.client.HTTPConnection(self.host, self.health, timeout=30)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        return page

    def metric(self, name):
        """The sum of all samples of a metric."""
        page = self.metrics()
        samples = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", page, re.M)
        return sum(float(value) for value in samples)

    def resident(self):
        return status_bytes(self.pid, "VmRSS")

    def resident_peak(self):
        return status_bytes(self.pid, "VmHWM")

    def forget_peak(self):
        """Begins the peak of resident memory anew."""
        with open(f"/proc/{self.pid}/clear_refs", "w", encoding="ascii") as file:
            file.write("5")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def await_metric(self, name, holds, seconds):
        """Seconds until the metric is as wanted, or None."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if holds(self.metric(name)):
                return time.monotonic() - begun
            time.sleep(0.05)
        return None


def status_bytes(pid, name):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * KIB
    raise KeyError(name)


def cpu_seconds(pid):
    """CPU of all threads that live, exact."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
                total += int(file.read().split()[0])
    return total / 1e9


class Generator:
    """A run of the load generator beside this process; `result` waits for its report."""

    def __init__(self, server, scenario, *options, prefix=()):
        command = [*prefix, str(Options.binaries / "relay-loadgen"), scenario, "--json", "--server-pid", str(server.pid)]
        command += ["--url", f"ws://{server.host}:{server.port}", "--app-id", APP, "--key", KEY, "--secret", SECRET]
        command += map(str, options)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.server = server

    def await_subscriptions(self, count, seconds):
        """Waits until the server has so many subscriptions; fails when the time is over or the generator has ended before."""

        def subscribed_or_ended(value):
            return value >= count or self.process.poll() is not None

        in_time = self.server.await_metric("relay_subscriptions", subscribed_or_ended, seconds) is not None
        if in_time and self.process.poll() is None:
            return
        held = self.server.metric("relay_subscriptions")
        if in_time:
            reason = "the load generator ended before"
            problems = [problem["text"] for problem in self.result()["problems"]]
        else:
            self.process.kill()
            self.process.communicate()
            reason, problems = f"not within {seconds} s", []
        raise RuntimeError(" ".join([f"{held:.0f} of {count} connections are subscribed: {reason}.", *problems]))

    def result(self):
        output, errors = self.process.communicate()
        try:
            return json.loads(output)
        except json.JSONDecodeError:
            raise RuntimeError(f"the load generator gave no report: {errors[-400:]}") from None

    def interrupt(self):
        """Ends it early, with its report."""
        self.process.send_signal(signal.SIGTERM)
        return self.result()


def generate(server, scenario, *options):
    return Generator(server, scenario, *options).result()


def hmac_hex(text, secret=SECRET):
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def signed(method, path, body=b"", secret=SECRET, at=None):
    """The path with a signed query."""
    query = f"auth_key={KEY}&auth_timestamp={int(at or time.time())}&auth_version=1.0"
    if body:
        query += f"&body_md5={hashlib.md5(body).hexdigest()}"
    return f"{path}?{query}&auth_signature={hmac_hex(f'{method}{chr(10)}{path}{chr(10)}{query}', secret)}"


def request(server, method, path, body=b"", connection=None):
    """Status and body of a request, on a connection of its own if none is given."""
    own = connection or http.client.HTTPConnection(server.host, server.port, timeout=30)
    own.request(method, path, body=body or None, headers={"Content-Type": "application/json"} if body else {})
    answer = own.getresponse()
    text = answer.read()
    if connection is None:
        own.close()
    return answer.status, text


def publish(server, channel, data, name="event", connection=None):
    body = json.dumps({"name": name, "channel": channel, "data": data}).encode()
    return request(server, "POST", signed("POST", f"/apps/{APP}/events", body), body, connection)[0]


def mask(payload, opcode=1, fin=True):
    """A frame of a client; the mask is zero, which changes nothing for the receiver."""
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", size)
    return head + bytes(4) + payload


def message(event, data):
    return mask(json.dumps({"event": event, "data": data}).encode())


UPGRADE = (
    f"GET /app/{KEY}?protocol=7&client=reliability&version=1 HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: cmVsaWFiaWxpdHktMTIzNA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


class Frames:
    """Takes the bytes of one connection after its handshake and gives its frames, (opcode, payload)."""

    def __init__(self):
        self.bytes = b""

    def take(self, more=b""):
        self.bytes += more
        at, frames = 0, []
        while len(self.bytes) - at >= 2:
            size, begin = self.bytes[at + 1] & 127, at + 2
            if size == 126:
                size, begin = int.from_bytes(self.bytes[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, begin = int.from_bytes(self.bytes[at + 2 : at + 10], "big"), at + 10
            if len(self.bytes) < begin + size:
                break
            frames.append((self.bytes[at] & 15, self.bytes[begin : begin + size]))
            at = begin + size
        self.bytes = self.bytes[at:]
        return frames


def close_code(payload):
    return int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005


class Socket:
    """A WebSocket client that waits. Pings are answered; `close` holds the code once the server closed it."""

    def __init__(self, server, port=None, seconds=10, host=None):
        self.socket = socket.create_connection((host or server.host, port or server.port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(UPGRADE)
        self.frames, self.waiting, self.close = Frames(), [], None
        head = b""
        while b"\r\n\r\n" not in head:
            more = self.socket.recv(4096)
            if not more:
                raise ConnectionError("ended in the handshake")
            head += more
        head, rest = head.split(b"\r\n\r\n", 1)
        self.status = int(head.split()[1])
        self.waiting += self.frames.take(rest)
        first = self.read(seconds)
        self.id = None
        if first and first.get("event") == "pusher:connection_established":
            self.id = json.loads(first["data"])["socket_id"]
        else:
            self.first = first

    def send(self, event, data):
        self.socket.sendall(message(event, data))

    def read(self, seconds=10):
        """The next message; None when time is up or the connection has ended."""
        end = time.monotonic() + seconds
        while True:
            while self.waiting:
                opcode, payload = self.waiting.pop(0)
                if opcode == 1:
                    return json.loads(payload)
                if opcode == 9:
                    self.socket.sendall(mask(payload, 10))
                if opcode == 8:
                    self.close = close_code(payload)
                    return None
            left = end - time.monotonic()
            if left <= 0 or self.close:
                return None
            self.socket.settimeout(left)
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                return None
            except OSError:
                more = b""
            if not more:
                self.close = self.close or 1006
                return None
            self.waiting += self.frames.take(more)

    def until(self, event, seconds=10):
        """The next message with this event; others are dropped."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            found = self.read(left)
            if found is None or found.get("event") == event:
                return found
        return None

    def subscription(self, channel, member=None, secret=SECRET):
        """The data of a subscribe, signed where the channel needs it."""
        data = {"channel": channel}
        text = f"{self.id}:{channel}"
        if member is not None:
            data["channel_data"] = json.dumps({"user_id": member})
            text += ":" + data["channel_data"]
        if channel.startswith(("private-", "presence-")):
            data["auth"] = f"{KEY}:{hmac_hex(text, secret)}"
        return data

    def subscribe(self, channel, member=None):
        self.send("pusher:subscribe", self.subscription(channel, member))
        answer = self.until("pusher_internal:subscription_succeeded")
        if answer is None:
            raise ConnectionError(f"not subscribed to {channel}")
        return answer

    def reset(self):
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def reset_all(sockets):
    for each in sockets:
        with contextlib.suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.close()


class Repeated:
    """Calls a function again and again in a thread of its own, until the block ends; what it raises is counted."""

    def __init__(self, function, per_second):
        self.function, self.interval, self.errors, self.calls = function, 1 / per_second, [], 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        due = time.monotonic()
        while not self.ended.is_set():
            try:
                self.function()
            except Exception as error:  # pylint: disable=broad-except
                self.errors.append(f"{type(error).__name__}: {error}")
            self.calls += 1
            due += self.interval
            self.ended.wait(max(0, due - time.monotonic()))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("nan")


def slope(points):
    """Least squares of (x, y)."""
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    across = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / across if across else 0.0


def random_key():
    return base64.b64encode(os.urandom(16)).decode()


ROWS = {}


def row(name, bound):
    """Registers a row: its function gives what was measured, in words, and whether the bound holds."""

    def register(function):
        ROWS[name] = (bound, function)
        return function

    return register
