"""Rows about what strangers send: credentials, requests that parsers disagree on, secrets in the log.

R18 has no tool to call: h1spec and smuggler are not in a package registry. Its requests are of the same kinds: the
prefixes and rules of h1spec's table, and every mutation of `Transfer-Encoding` by one byte that smuggler's exhaustive
list makes.
"""

import contextlib
import hashlib
import json
import re
import socket
import time

from rig import APP, KEY, SECRET, Options, Server, Socket, hmac_hex, request, row, signed


def flipped(text):
    """The text with each single bit of each byte flipped, where the result is printable and not the same digit."""
    for at, byte in enumerate(text.encode()):
        for bit in range(7):
            other = chr(byte ^ (1 << bit))
            if other.isprintable() and other not in '"\\':
                yield text[:at] + other + text[at + 1 :]


def subscriptions(server):
    """(what, data, whether it must be accepted), for one socket."""
    client, other = Socket(server), Socket(server)
    channel = "private-matrix"
    good = client.subscription(channel)["auth"]
    digest = good.split(":")[1]
    wrong = [f"{KEY}:{text}" for text in flipped(digest)]
    wrong += [f"{KEY}:{digest[:size]}" for size in range(64)] + [f"{KEY}:{digest}{text}" for text in ("0", "00", " ", "\n")]
    wrong += [f"{KEY}:{digest.upper()}", f"{KEY.upper()}:{digest}", digest, f":{digest}", f"{KEY}:", "", ":", f" {good}"]
    wrong += [f"{key}:{digest}" for key in flipped(KEY)]
    wrong += [other.subscription(channel)["auth"], client.subscription("private-other")["auth"]]
    wrong += [client.subscription(channel, secret=text)["auth"] for text in ("", SECRET + "x", SECRET[:-1], KEY)]
    for auth in wrong:
        yield client, {"channel": channel, "auth": auth}, False
    for number in range(300):
        yield client, client.subscription(f"private-matrix-{number}"), True
        yield client, client.subscription(f"presence-matrix-{number}", str(number)), True
    for number in range(300):
        data = client.subscription(f"presence-wrong-{number}", f"u{number}")
        data["channel_data"] = data["channel_data"].replace("u", "v")
        yield client, data, False
    for number in range(100):
        data = client.subscription(f"presence-none-{number}", "u")
        del data["channel_data"]
        yield client, data, False


def requests(server):
    """(request target, body, whether it must be accepted)."""
    path, now = f"/apps/{APP}/events", time.time()
    body = json.dumps({"name": "e", "channel": "c", "data": "d"}).encode()
    good = signed("POST", path, body)
    for shift, accepted in ((0, True), (590, True), (-590, True), (601, False), (-601, False), (86_400, False)):
        yield "POST", signed("POST", path, body, at=now + shift), body, accepted
    for number in range(200):
        text = json.dumps({"name": "e", "channel": "c", "data": "d" * number}).encode()
        yield "POST", signed("POST", path, text), text, True
        yield "POST", signed("POST", path, text), text[:-2] + b" }", False
    for secret in ("", SECRET + "x", SECRET[:-1], SECRET.upper(), KEY):
        yield "POST", signed("POST", path, body, secret=secret), body, False
    digest = good.rsplit("=", 1)[1]
    for wrong in list(flipped(digest)) + [digest[:size] for size in range(64)] + [digest.upper(), digest + "0"]:
        if wrong.isalnum() and wrong.isascii():
            yield "POST", good.rsplit("=", 1)[0] + "=" + wrong, body, False
    for name in ("auth_key", "auth_timestamp", "auth_version", "body_md5"):
        start, rest = good.split(f"{name}=", 1)
        tail = rest.split("&", 1)[1]
        yield "POST", start + tail, body, False
        yield "POST", f"{start}{name}=0&{tail}", body, False
    yield "POST", good + "&extra=1", body, False
    yield "POST", good.replace(f"/apps/{APP}/", "/apps/2/"), body, False
    yield "POST", good.replace("events", "batch_events"), body, False
    yield "GET", signed("POST", f"/apps/{APP}/channels"), b"", False
    yield "GET", signed("GET", f"/apps/{APP}/channels"), b"", True
    yield "POST", path, body, False


def verdicts(server):
    """Cases, false accepts and false rejects."""
    cases, accepts, rejects = 0, [], []
    for client, data, wanted in subscriptions(server):
        client.send("pusher:subscribe", data)
        while True:
            answer = client.read(10)
            if answer is None:
                raise ConnectionError(f"no answer to {data}: {client.close}")
            kind = answer["event"].split(":")[-1]
            if kind in ("subscription_succeeded", "subscription_error"):
                break
        cases += 1
        accepted = kind == "subscription_succeeded"
        (accepts if accepted else rejects).append(data) if accepted != wanted else None
        if accepted and not wanted:
            client.send("pusher:unsubscribe", {"channel": data["channel"]})
    for method, target, body, wanted in requests(server):
        status, _ = request(server, method, target, body)
        cases += 1
        accepted = status == 200
        (accepts if accepted else rejects).append((method, target, status)) if accepted != wanted else None
    return cases, accepts, rejects


@row("R16", "0 false accepts, 0 false rejects in at least 2,000 cases")
def authentication():
    with Server(shards=2, settings=[("max_channels_per_connection", "5000")]) as server:
        cases, accepts, rejects = verdicts(server)
    text = f"{cases} credentials over WebSocket and HTTP: {len(accepts)} false accepts, {len(rejects)} false rejects"
    return text + "".join(f"; {wrong}" for wrong in (accepts + rejects)[:3]), cases >= 2_000 and not accepts + rejects


@row("R27", "0 secrets in the log at the finest level")
def secrets():
    with Server("--log", "trace", settings=[("max_channels_per_connection", "5000")]) as server:
        cases, *_ = verdicts(server)
        client = Socket(server)
        digest = client.subscription("private-log")["auth"].split(":")[1]
        client.subscribe("private-log")
        token = json.loads(server.cli("token", "create", "--app", APP, "--name", "t", "--json"))["token"]
        body = b'{"name":"e","channel":"c","data":"what-the-customer-sent"}'
        target = signed("POST", f"/apps/{APP}/events", body)
        request(server, "POST", target, body)
        request(server, "POST", f"/apps/{APP}/events?token={token}", body)
        time.sleep(0.5)
        log = server.log()
    words = {SECRET, digest, token, target.rsplit("=", 1)[1], hashlib.md5(body).hexdigest(), "what-the-customer-sent"}
    found = sorted(word for word in words if word in log)
    text = f"{cases} requests and subscriptions, {log.count(chr(10))} lines of log: {len(found)} of {len(words)} secrets found"
    return text + "".join(f"; {word}" for word in found), not found and log.count("\n") > 100


HOST = "Host: relay.test\r\n"
SMUGGLED = "GET /up HTTP/1.1\r\nHost: smuggled\r\n\r\n"


def specification():
    """(what, request, statuses that are right; none means that the server must wait for the rest)."""
    whole = "GET /up HTTP/1.1\r\nHost: localhost\r\n\r\n"
    cuts = [1, 4, 7, 8, 12, 16, 17, 18, 21, 23, 24, 33, 34, 35, 36]
    cases = [(f"waits after {whole[:cut]!r}", whole[:cut], None) for cut in cuts]
    good, refused, failed = range(200, 300), range(400, 500), range(400, 600)
    line = "GET /up HTTP/1.1\r\n"
    return cases + [
        ("whole request", whole, good),
        ("names in any case, values that are empty or behind a tab", f"{line}hOSt:\trelay.test\r\nX-A:\r\n\r\n", good),
        ("a value of one space", f"{line}{HOST}X-A: \r\n\r\n", good),
        ("Expect: 100-continue", f"{line}{HOST}Expect: 100-continue\r\n\r\n", [100, *good]),
        ("a body", f"POST /up HTTP/1.1\r\n{HOST}Content-Length: 4\r\n\r\nbody", [*good, 404, 405]),
        ("no version", "GET /up \r\n\r\n", failed),
        ("a version that does not exist", f"GET /up HTTP/9.9\r\n{HOST}\r\n", failed),
        ("words before the method", f"Some words GET /up HTTP/1.1\r\n{HOST}\r\n", failed),
        ("brackets in a name", f"{line}{HOST}X-A[]: b\r\n\r\n", refused),
        ("no Host", f"{line}Content-Length: 0\r\n\r\n", refused),
        ("two Hosts", f"{line}{HOST}Host: other.test\r\n\r\n", refused),
        ("a length below zero", f"{line}{HOST}Content-Length: -77\r\n\r\n", refused),
        ("a length far below zero", f"{line}{HOST}Content-Length: -{'9' * 30}\r\n\r\n", refused),
        ("a length in words", f"{line}{HOST}Content-Length: five\r\n\r\n", refused),
        ("a bell in a value", f"{line}{HOST}X-A: b\x07\r\n\r\n", refused),
        ("a lone CR before a name", f"{line}{HOST}\rX-A: b\r\n\r\n", refused),
        ("length and chunks", f"{line}{HOST}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", refused),
        ("a lone CR behind the head", f"{line}{HOST}\r\n\rX-A: b\r\n\r\n", [200, *refused]),
    ]


def mutations():
    """Headers that one party may take for `Transfer-Encoding: chunked` and another not."""
    words = "Transfer-Encoding: chunked"
    for byte in [*range(1, 0x20), *range(0x7F, 0x100)]:
        odd = chr(byte)
        yield from (
            f"Transfer-Encoding:{odd}chunked", f"Transfer-Encoding{odd}: chunked", f"{odd}{words}", f"{words}{odd}",
            f"X: X{odd}{words}", f"{words}{odd}X: X", f"X: X\r{odd}{words}", f"X: X{odd}\n{words}",
            f"{words}\r{odd}X: X", f"{words}{odd}\nX: X",
        )
    for value in ("chunked, cow", "cow, chunked", '"chunked"', "'chunked'", "chunk", "cow chunked bar", "cHuNkeD", "ch\x96nked"):
        yield f"Transfer-Encoding: {value}"
    for name in ("Transfer Encoding", "Transfer_Encoding", "Transf\x82r-Encoding", "Transfer\r-Encoding", "TRANSFER-ENCODING"):
        yield f"{name}: chunked"
    yield "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"
    yield "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow"
    yield "Transfer-Encoding:\n chunked"
    yield "Content-Encoding: chunked"


def answers(server, text, seconds):
    """Statuses until the server ends the connection, and whether it did within the time."""
    with contextlib.closing(socket.create_connection((server.host, server.port), timeout=seconds)) as stream:
        stream.sendall(text.encode("latin-1"))
        received, end = b"", time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            stream.settimeout(left)
            try:
                more = stream.recv(65536)
            except TimeoutError:
                return statuses(received), False
            except ConnectionError:
                more = b""
            if not more:
                return statuses(received), True
            received += more
        return statuses(received), False


def statuses(received):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def disagreement(server, header):
    """What is wrong with the answers to requests that have this header and a length, or None.

    The first one's length covers everything that follows. A server that goes by the length answers once; one that refuses answers
    once with 4xx and ends the connection; one that goes by the chunks answers the smuggled request too."""
    body = f"0\r\n\r\n{SMUGGLED}"
    head = f"POST /up HTTP/1.1\r\n{header}\r\n{HOST}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    found, ended = answers(server, head + body, 3)
    if len(found) != 1 or not ended:
        return f"{header!r}: {found}, {'ended' if ended else 'open'}"
    # Complete by its length, unfinished as chunks: a server that waits uses the chunks.
    head = f"POST /up HTTP/1.1\r\n{header}\r\n{HOST}Content-Length: 4\r\nConnection: close\r\n\r\n"
    found, ended = answers(server, f"{head}ff\r\n", 3)
    if len(found) != 1 or not ended:
        return f"{header!r}, unfinished: {found}, {'ended' if ended else 'open'}"
    return None


@row("R18", "all of h1spec's kinds of request right, 0 smuggling findings")
def requests_that_parsers_disagree_on():
    with Server(shards=2) as server:
        wrong = []
        for what, text, right in specification():
            found, ended = answers(server, text, 0.3)
            good = found == [] and not ended if right is None else bool(found) and found[0] in right
            if not good:
                wrong.append(f"{what}: {found}")
        tried = list(dict.fromkeys(mutations()))[:: Options.pick(1, 40)]
        findings = [finding for finding in (disagreement(server, header) for header in tried) if finding]
    count = len(specification())
    text = f"{count - len(wrong)} of {count} right; {2 * len(tried)} mutated requests, {len(findings)} findings"
    return text + "".join(f"; {each}" for each in (wrong + findings)[:4]), not wrong and not findings
