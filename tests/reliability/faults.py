"""Rows with a fault beside the load: killed processes, descriptors used up, slow and hostile strangers, peers that
vanish, hosts on which the server cannot start."""

import contextlib
import ctypes
import http.client
import json
import multiprocessing
import os
import random
import re
import select
import socket
import struct
import subprocess
import time

from load import troubles
from rig import APP, MIB, ROOT, UPGRADE, Generator, Options, Repeated, Server, Socket
from rig import clean_environment, mask, message, percentile, publish, raise_descriptors, request, reset_all, row, take_core

CLONE_NEWNET = 0x40000000


class Beside:
    """A function in a process of its own; it gets a pipe on which it is asked things and answers them."""

    def __init__(self, function, *arguments):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=function, args=(other, *arguments), daemon=True)
        self.process.start()

    def ask(self, word):
        self.pipe.send(word)
        return self.pipe.recv()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()


@row("R9", "0 acknowledged writes missing, 0 failures to open, ready within 1 s")
def killed():
    """Every turn starts a server on the same store, writes tokens beside it, and kills both at a random moment."""
    turns, dice = Options.pick(1_000, 15), random.Random(9)
    relay = str(Options.binaries / "relay")
    acknowledged, ready, failures = [], [], 0
    with Server() as first:
        data, flags = first.data, ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--log", "error"]
        first.process.kill()
        first.process.wait()
        for _ in range(turns):
            begun = time.monotonic()
            command = [relay, "serve", "--data", data, "--shards", "1", "--io", Options.io, *flags]
            server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            line = server.stdout.readline()
            ready.append(time.monotonic() - begun)
            failures += b"listening" not in line
            create = [relay, "token", "create", "--app", APP, "--name", "t", "--json", "--data", data]
            writers = [subprocess.Popen(create, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
            time.sleep(dice.uniform(0, 0.02))
            victim = dice.choice([server, writers[0], writers[1]])
            victim.kill()
            for writer in writers:
                output = writer.communicate()[0]
                with contextlib.suppress(ValueError, KeyError):
                    acknowledged.append(json.loads(output)["id"])
            server.kill()
            server.communicate()
        kept = {token["id"] for token in json.loads(first.cli("token", "list", "--app", APP, "--json"))}
    missing = sum(token not in kept for token in acknowledged)
    text = f"{turns} turns, {len(acknowledged)} acknowledged writes: {missing} missing, {failures} failures to open, "
    text += f"ready after {percentile(ready, 50) * 1000:.0f} ms (slowest {max(ready) * 1000:.0f} ms)"
    return text, missing == 0 and failures == 0 and max(ready) <= Options.pick(1, 30)


def hold(pipe, address, count, source):
    """Opens so many WebSockets from one address, says how they ended up, and resets them when asked."""
    raise_descriptors()
    take_core(1)
    sockets, heads = [], {}
    poller = select.epoll()

    def look(seconds):
        for descriptor, _ in poller.poll(seconds):
            with contextlib.suppress(OSError):
                heads[descriptor] = heads.get(descriptor, b"") + by_descriptor[descriptor].recv(4096)
            if b"connection_established" in heads.get(descriptor, b"") or len(heads.get(descriptor, b"")) > 400:
                poller.unregister(descriptor)

    by_descriptor = {}
    for number in range(count):
        each = socket.socket()
        each.bind((source, 0))
        each.settimeout(5)
        try:
            each.connect(address)
            each.sendall(UPGRADE)
        except OSError:
            each.close()
            continue
        each.setblocking(False)
        by_descriptor[each.fileno()] = each
        poller.register(each, select.EPOLLIN)
        sockets.append(each)
        if number % 50 == 0:
            look(0)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        look(0.1)
    served = sum(b"connection_established" in head for head in heads.values())
    refused = sum(b'"code":4100' in head for head in heads.values())
    pipe.recv()
    pipe.send((served, refused))
    pipe.recv()
    reset_all(sockets)
    pipe.send(None)
    time.sleep(3600)


def api_times(server, count):
    """Milliseconds of signed publishes, each on a connection of its own; and how many failed."""
    times, failed = [], 0
    for _ in range(count):
        begun = time.monotonic()
        try:
            failed += publish(server, "api", "1") != 200
        except (OSError, http.client.HTTPException):
            failed += 1
        times.append((time.monotonic() - begun) * 1000)
    return times, failed


@row("R12", "listener survives, HTTP API p99 < 100 ms while full, served again within 1 s")
def exhaustion():
    """On epoll the process runs out of descriptors; on io_uring, whose connections need none, out of slots."""
    limit = Options.pick(20_000, 1_000)
    flags = [] if Options.io == "epoll" else ["--max-connections", str(limit)]
    with Server(*flags, descriptors=limit if Options.io == "epoll" else None) as server:
        address = server.host, server.port
        half = (limit + limit // 4) // 2
        with Beside(hold, address, half, "127.1.0.1") as one, Beside(hold, address, half, "127.1.0.2") as two:
            states = [one.ask("how many"), two.ask("how many")]
            served, refused = (sum(state[at] for state in states) for at in (0, 1))
            times, failed = api_times(server, Options.pick(200, 20))
            for each in (one, two):
                each.ask("let go")
            begun, back = time.monotonic(), None
            while back is None and time.monotonic() - begun < 20:
                with contextlib.suppress(OSError):
                    client = Socket(server, seconds=2)
                    back = time.monotonic() - begun if client.id else None
                    client.reset()
        lives = server.lives()
    text = f"{2 * half} opened, {served} served, {refused} refused with 4100, {2 * half - served - refused} wait: API p99 "
    text += f"{percentile(times, 99):.1f} ms, {failed} of {len(times)} failed; served again {back or float('nan'):.3f} s after all left"
    return text, lives and failed == 0 and percentile(times, 99) < 100 and back is not None and back <= 1


def drip(pipe, address, count):
    """Keeps so many requests open that never end: a byte each second for each, and a new one for each that is cut off."""
    raise_descriptors()
    take_core(1)
    starts = [
        UPGRADE[:-2] + b"X-Drip: ",
        b"GET /up HTTP/1.1\r\nHost: h\r\nX-Drip: ",
        f"POST /apps/{APP}/events HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n{{".encode(),
        f"POST /apps/{APP}/events HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n{{".encode(),
        b"GET /up HTTP/1.1\r\nHost: h\r\n\r\n" * 40,  # answers that are never read
        b"",
    ]
    sockets, cut = [], 0

    def start(number):
        each = socket.socket()
        each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
        each.bind((f"127.1.0.{number % 4 + 1}", 0))
        each.settimeout(10)
        try:
            each.connect(address)
            each.sendall(starts[number % len(starts)])
        except OSError:
            pass
        each.setblocking(False)
        return each

    while True:
        begun = time.monotonic()
        for number in range(count):
            if number < len(sockets):
                try:
                    sockets[number].send(b"x" if number % len(starts) != 5 else b"")
                    ended = number % len(starts) != 4 and sockets[number].recv(4096, socket.MSG_PEEK) is not None
                except BlockingIOError:
                    ended = False
                except OSError:
                    ended = True
                if ended:
                    cut += 1
                    reset_all([sockets[number]])
                    sockets[number] = start(number)
            else:
                sockets.append(start(number))
            if number % 20 == 0 and pipe.poll():
                pipe.recv()
                pipe.send((len(sockets), cut))
        time.sleep(max(0, 1 - (time.monotonic() - begun)))


@row("R13", "all legitimate clients connect, p99 < 100 ms")
def slowloris():
    count = Options.pick(10_000, 300)
    with Server() as server, Beside(drip, (server.host, server.port), count) as drips:
        end = time.monotonic() + 60
        while drips.ask("how many")[0] < count and time.monotonic() < end:
            time.sleep(0.2)
        clients, seconds = Options.pick(1_000, 50), Options.pick(20, 3)
        run = Generator(
            server, "connection-storm", "--target-connections", clients, "--ramp-seconds", seconds, "--hold-seconds", 0
        )
        with Repeated(lambda: request(server, "GET", "/up"), 20) as up:
            report = run.result()
        held, cut = drips.ask("how many")
    p99 = report["times-ms"]["join"]["p99"]
    text = f"{held} slow requests of six kinds, {cut} cut off: {report['figures']['joined']:.0f} of {clients} connected, "
    text += f"p99 {p99:.1f} ms, {len(up.errors)} of {up.calls} requests to /up failed" + troubles(report)
    return text, held >= count and report["figures"]["joined"] == clients and p99 < 100 and not up.errors


def hostile_frames():
    """What a hostile client sends after its handshake (threats T7 to T11)."""
    deep = b"[" * 60_000
    return [
        bytes([0x81, 0xFF]) + struct.pack(">Q", size) + bytes(4) for size in (1 << 31, 1 << 40, (1 << 63) - 1)
    ] + [
        mask(b"", 1, False) + mask(b"", 0, False) * 5_000,
        mask(b"x", 1, False) + mask(b"x", 0, False) * 5_000,
        bytes([0xC1, 0xFE]) + struct.pack(">H", 10_000) + bytes(10_004),
        mask(deep[:20_000]),
        mask(b'{"a":' * 4_000),
        mask(b'{"event":"pusher:ping","data":1e309}'),
        mask(b'{"event":"pusher:subscribe","data":{"channel":"\\ud800"}}'),
        mask(b'{"event":"pusher:subscribe","data":{"channel":"a","channel":"b"}}'),
        mask(b"\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80"),
        mask(b"\xff" * 5_000),
        mask(b"", 3),
        mask(b"x" * 126, 9),
        mask(b"\x03", 8),
        message("pusher:subscribe", {"channel": "x" * 5_000}) * 5,
        os.urandom(4_000),
    ]


def attack(pipe, address, count):
    raise_descriptors()
    take_core(1)
    frames, sockets = hostile_frames(), []
    for number in range(count):
        each = socket.create_connection(address, timeout=5)
        with contextlib.suppress(OSError):
            each.sendall(UPGRADE)
            each.recv(300)
            each.sendall(frames[number % len(frames)])
        sockets.append(each)
    pipe.recv()
    pipe.send(len(sockets))
    time.sleep(3600)


@row("R14", "no crash, healthy clients lose nothing, RSS grows by < 50 MiB")
def hostile():
    count = Options.pick(1_000, 100)
    with Server() as server:
        run = Generator(
            server, "fan-out", "--subscribers", count, "--events-per-second", 5,
            "--duration-seconds", Options.pick(20, 4),
        )
        run.await_subscriptions(count, 60)
        before = server.resident()
        server.forget_peak()
        with Beside(attack, (server.host, server.port), count) as attackers:
            hostile_count = attackers.ask("how many")
            report = run.result()
        growth = (server.resident_peak() - before) / MIB
        lives = server.lives()
    figures = report["figures"]
    text = f"{hostile_count} hostile connections of {len(hostile_frames())} kinds among {count} healthy: "
    text += f"{figures['loss']:.0f} of {figures['expected']:.0f} deliveries lost, peak RSS +{growth:.1f} MiB"
    return text + troubles(report), lives and figures["loss"] == 0 and growth < 50 and hostile_count == count


class Namespaces:
    """Two network namespaces and a pair of virtual links between them."""

    SERVER, CLIENTS = "10.83.0.1", "10.83.0.2"

    def __init__(self):
        self.names = [f"relay-{os.getpid()}-{side}" for side in "sc"]

    def __enter__(self):
        server, clients = self.names
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", "relay-s", "netns", server, "type", "veth", "peer", "name", "relay-c", "netns", clients)
        for name, link, address in ((server, "relay-s", self.SERVER), (clients, "relay-c", self.CLIENTS)):
            ip("-n", name, "address", "add", f"{address}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        return self

    def cut(self):
        ip("-n", self.names[1], "link", "set", "relay-c", "down")

    def __exit__(self, *_):
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def enter(name):
    """Takes this process into a namespace."""
    with open(f"/run/netns/{name}", "rb") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def members(pipe, namespace, port, count, users):
    """So many connections in the namespace, each a member of the presence channel; answers pings while it can."""
    enter(namespace)
    raise_descriptors()

    class Far:
        host = Namespaces.SERVER

    Far.port = port
    sockets = []
    for number in range(count):
        client = Socket(Far)
        client.subscribe("presence-far" if number < users else "far", f"u{number}" if number < users else None)
        sockets.append(client.socket)
    pipe.recv()
    pipe.send(len(sockets))
    time.sleep(3600)


def observe(pipe, namespace, port):
    """One member on the server's own side that counts who leaves, and when."""
    enter(namespace)

    class Near:
        host = "127.0.0.1"

    Near.port = port
    client = Socket(Near)
    client.subscribe("presence-far", "observer")
    removed = []
    while True:
        if pipe.poll():
            pipe.recv()
            pipe.send(removed)
        found = client.read(0.2)
        if found and found["event"].endswith("member_removed"):
            removed.append((time.monotonic(), json.loads(found["data"])["user_id"]))


@row("R25", "all reaped within 180 s and 10 % of the link's loss, each member removed once")
def dead_peers():
    if os.geteuid() != 0:
        return "needs root for network namespaces", None
    count, users = Options.pick(1_000, 60), Options.pick(90, 20)
    activity = Options.pick(120, 2)
    bound = Options.pick(180 * 1.1, 62 * 1.1)
    with Namespaces() as names:
        prefix = ["ip", "netns", "exec", names.names[0]]
        with Server("--activity-timeout", str(activity), prefix=prefix, listen="0.0.0.0:0") as server:
            with Beside(members, names.names[1], server.port, count, users) as far:
                with Beside(observe, names.names[0], server.port) as near:
                    opened = far.ask("how many")
                    # The health port is in the server's namespace: query it through the observer's side.
                    cut = time.monotonic()
                    names.cut()
                    removed, left = [], None
                    while time.monotonic() - cut < bound + 10:
                        time.sleep(1)
                        removed = near.ask("who left")
                        left = sockets_of(names.names[0], server)
                        if left <= 1 and len(removed) >= users:
                            break
                    took = time.monotonic() - cut
                    time.sleep(2)
                    removed = near.ask("who left")
    once = len(removed) == len({user for _, user in removed}) == users
    last = max((at for at, _ in removed), default=cut) - cut
    text = f"{opened} connections, link down: {left - 1} left after {took:.0f} s, {len(removed)} removals of {users} "
    text += f"members, each once: {'yes' if once else 'no'}, the last after {last:.0f} s"
    return text, once and left <= 1 and took <= bound and opened == count


def sockets_of(namespace, server):
    """WebSockets that the server counts, asked in its namespace."""
    command = ["ip", "netns", "exec", namespace, "python3", "-c"]
    script = (
        "import urllib.request as u;"
        f"print(u.urlopen('http://127.0.0.1:{server.health}/metrics').read().decode())"
    )
    page = subprocess.run([*command, script], check=True, capture_output=True, text=True).stdout
    return int(sum(float(value) for value in re.findall(r"^relay_websockets\{.*\} (\S+)$", page, re.M)))


@row("R30", "one line with cause and fix, exit code 1 or 2, within 1 s; a port in use within 3 s")
def refusals():
    relay, results = str(Options.binaries / "relay"), []
    free = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    forbid = ["python3", str(ROOT / "tests/common/forbid_io_uring.py")]

    def refused(name, command, wanted, seconds=1, **environment):
        begun = time.monotonic()
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=clean_environment(**environment)
        )
        took = time.monotonic() - begun
        lines = done.stderr.strip().splitlines()
        good = done.returncode in (1, 2) and len(lines) == 1 and wanted in lines[0] and took < Options.pick(seconds, 30)
        results.append((name, good, done.returncode, took, done.stderr.strip()[-300:]))

    with Server() as holder:
        data = holder.data
        serve = [relay, "serve", "--data", data, *free]
        refused("data in use", serve, "serve")
        taken = [relay, "serve", "--data", data + "-2", "--listen", f"127.0.0.1:{holder.port}", *free[2:]]
        # The server waits 2 s for the port: the kernel may still be releasing one that has just been closed.
        refused("port in use", taken, str(holder.port), 3)
    demand = [*serve, "--io", "uring", "--shards", "1"]
    refused("io_uring forbidden", [*forbid, *demand], "io_uring")
    refused("unknown setting", [*serve, "--shard", "1"], "shards")
    refused("bad value", [*serve, "--io", "iouring"], "uring")
    refused("bad variable", serve, "RELAY_SHARDS", RELAY_SHARDS="many")
    with Server() as other:
        other.process.kill()
        other.process.wait()
        file = os.path.join(other.data, "data.mdb")
        os.chmod(file, 0o644)
        refused("store readable by others", [relay, "serve", "--data", other.data, *free], "chmod")
        os.chmod(file, 0o600)
        with open(file, "r+b") as store:
            store.truncate(5_000)
        refused("store cut", [relay, "serve", "--data", other.data, *free], "data.mdb")
    bad = [f"{name} (exit {code}, {took:.2f} s: {text})" for name, good, code, took, text in results if not good]
    slowest = max(took for name, _, _, took, _ in results if name != "port in use")
    text = f"{len(results) - len(bad)} of {len(results)} refusals in one line, the slowest after {slowest * 1000:.0f} ms"
    return text + ("; not so: " + "; ".join(bad) if bad else ""), not bad
