"""R6: channels with many subscribers behind a proxy that tears the stream apart. Every subscriber of a channel must
receive exactly the same events in the same order.

The proxy runs in processes of its own, one epoll set each. What it does to a connection is drawn from a seed: the
first bytes one by one, later pieces of any size, with pauses. A subscriber keeps a chain, SHA-256 of the chain before
and the next message, so that one value stands for everything that it received.
"""

import collections
import hashlib
import heapq
import http.client
import json
import multiprocessing
import random
import select
import socket
import time

from rig import UPGRADE, Frames, Options, Server, message, publish, raise_descriptors, row

EDGES = select.EPOLLIN | select.EPOLLRDHUP


class Pipe:
    """One direction of a proxied connection."""

    def __init__(self, source, target, dice):
        self.source, self.target, self.dice = source, target, dice
        self.waiting, self.single, self.due = bytearray(), dice.choice([0, 40, 400, 2_000]), 0.0

    def pump(self, now):
        """Passes on what is due; the moment for the next piece, or None."""
        while self.waiting and self.due <= now:
            size = 1 if self.single > 0 else self.dice.choice([1, 2, 3, 50, 500, 5_000])
            self.single -= 1
            try:
                sent = self.target.send(self.waiting[:size])
            except BlockingIOError:
                return now + 0.005
            except OSError:
                self.waiting.clear()
                return None
            del self.waiting[:sent]
            if self.dice.random() < 0.02:
                self.due = now + self.dice.uniform(0.001, 0.05)
        return self.due if self.waiting else None


def proxy(listener, address, seed):
    """Serves connections of the listener until the process is ended."""
    raise_descriptors()
    poller, pipes, timers, dice = select.epoll(), {}, [], random.Random(seed)
    listener.setblocking(False)
    poller.register(listener, select.EPOLLIN)
    while True:
        now = time.monotonic()
        timeout = max(0, timers[0][0] - now) if timers else 5
        for descriptor, _ in poller.poll(timeout):
            if descriptor == listener.fileno():
                accept(listener, address, poller, pipes, dice)
                continue
            pipe = pipes[descriptor]
            try:
                more = pipe.source.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                more = b""
            if not more:
                for end in (pipe.source, pipe.target):
                    pipes.pop(end.fileno(), None)
                    end.close()
                continue
            idle = not pipe.waiting
            pipe.waiting += more
            if idle:
                schedule(timers, pipe, pipe.pump(time.monotonic()))
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            pipe = heapq.heappop(timers)[2]
            if pipe.target.fileno() >= 0:
                schedule(timers, pipe, pipe.pump(now))


def schedule(timers, pipe, due):
    if due is not None:
        heapq.heappush(timers, (due, id(pipe), pipe))


def accept(listener, address, poller, pipes, dice):
    for _ in range(64):
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        server = socket.create_connection(address)
        for source, target in ((client, server), (server, client)):
            source.setblocking(False)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pipes[source.fileno()] = Pipe(source, target, random.Random(dice.random()))
            poller.register(source, EDGES)


class Subscriber:
    def __init__(self, address, channel):
        self.channel, self.frames, self.head = channel, Frames(), b""
        self.chain, self.received, self.last = b"", 0, {}
        self.doubled = self.disordered = 0
        self.subscribed = self.ended = False
        self.socket = socket.create_connection(address)
        self.socket.sendall(UPGRADE + message("pusher:subscribe", {"channel": f"ordered-{channel}"}))
        self.socket.setblocking(False)

    def take(self, more):
        if self.head is not None:
            self.head += more
            if b"\r\n\r\n" not in self.head:
                return
            if b" 101 " not in self.head.split(b"\r\n", 1)[0]:
                # With the stream split up, the handshake can take longer than its limit of 5 s.
                self.ended = True
                return
            more, self.head = self.head.split(b"\r\n\r\n", 1)[1], None
        for opcode, payload in self.frames.take(more):
            if opcode == 8:
                self.ended = True
            if opcode != 1:
                continue
            text = json.loads(payload)
            if text["event"] == "pusher_internal:subscription_succeeded":
                self.subscribed = True
            if text["event"] != "event":
                continue
            publisher, number = map(int, text["data"].split(":")[:2])
            before = self.last.get(publisher, -1)
            self.doubled += number == before
            self.disordered += number < before
            self.last[publisher] = number
            self.chain = hashlib.sha256(self.chain + payload).digest()
            self.received += 1


@row("R6", "equal chains on all subscribers of a channel, 0 doubled, 0 out of order, gaps only where closed")
def order():
    channels, size, publishers = Options.pick(200, 8), Options.pick(50, 4), 4
    rounds = Options.pick(10, 3)
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(2)]
    with Server("--activity-timeout", "3600", shards=2) as server:
        address = server.host, server.port
        proxies = [
            multiprocessing.Process(target=proxy, args=(listener, address, seed), daemon=True)
            for seed, listener in enumerate(listeners)
        ]
        for process in proxies:
            process.start()
        try:
            return run(server, [listener.getsockname() for listener in listeners], channels, size, publishers, rounds)
        finally:
            for process in proxies:
                process.kill()
                process.join()


def run(server, addresses, channels, size, publishers, rounds):
    poller, subscribers = select.epoll(), {}

    def read(seconds):
        for descriptor, _ in poller.poll(seconds):
            subscriber = subscribers[descriptor]
            try:
                more = subscriber.socket.recv(65536)
            except OSError:
                more = b""
            if more:
                subscriber.take(more)
            else:
                subscriber.ended = True
            if subscriber.ended:
                poller.unregister(descriptor)

    def join(numbers):
        """Subscribes these, some at a time; gives back those that were not."""
        late = []
        for first in range(0, len(numbers), 200):
            batch = {}
            for number in numbers[first : first + 200]:
                subscriber = Subscriber(addresses[number % 2], number % channels)
                batch[number] = subscribers[subscriber.socket.fileno()] = subscriber
                poller.register(subscriber.socket, EDGES)
            end = time.monotonic() + 30
            while not all(one.subscribed or one.ended for one in batch.values()) and time.monotonic() < end:
                read(0.1)
            for number, subscriber in batch.items():
                if not subscriber.subscribed:
                    late.append(number)
                    del subscribers[subscriber.socket.fileno()]
                    subscriber.socket.close()
        return late

    late = list(range(channels * size))
    for _ in range(5):
        late = join(late)
    subscribed = sum(each.subscribed for each in subscribers.values())

    accepted = collections.Counter()
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    speakers = [
        context.Process(target=speak, args=(server, number, channels, rounds, results), daemon=True)
        for number in range(publishers)
    ]
    for speaker in speakers:
        speaker.start()
    expected, reports, quiet = None, 0, time.monotonic()
    while True:
        before = sum(each.received for each in subscribers.values())
        read(0.2)
        if sum(each.received for each in subscribers.values()) != before:
            quiet = time.monotonic()
        while not results.empty():
            accepted.update(results.get())
            reports += 1
        if reports == publishers:
            expected = sum(accepted.values()) * size
            done = sum(each.received for each in subscribers.values()) >= expected
            if done or time.monotonic() - quiet > 20:
                break
    by_channel = collections.defaultdict(collections.Counter)
    for subscriber in subscribers.values():
        if not subscriber.ended:
            by_channel[subscriber.channel][subscriber.chain] += 1
    unequal = sum(sum(chains.values()) - max(chains.values()) for chains in by_channel.values())
    short = sum(each.received < accepted[each.channel] for each in subscribers.values() if not each.ended)
    doubled = sum(each.doubled for each in subscribers.values())
    disordered = sum(each.disordered for each in subscribers.values())
    ended = sum(each.ended for each in subscribers.values())
    received = sum(each.received for each in subscribers.values())
    text = (
        f"{channels} channels of {size} subscribers, {publishers} publishers, {received} of {expected} deliveries: "
        f"{unequal} chains differ, {short} subscribers short, {doubled} doubled, {disordered} out of order, {ended} closed"
    )
    ok = subscribed == channels * size and unequal == short == doubled == disordered == ended == 0
    return text, ok and received == expected


def speak(server, number, channels, rounds, results):
    """One publisher: to every channel in an order of its own, one event after the other."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    accepted, dice = collections.Counter(), random.Random(number)
    for turn in range(rounds):
        order_of_turn = list(range(channels))
        dice.shuffle(order_of_turn)
        for channel in order_of_turn:
            data = f"{number}:{turn}:{'x' * dice.randrange(200)}"
            accepted[channel] += publish(server, f"ordered-{channel}", data, connection=connection) == 200
    results.put(accepted)
