"""pysher, a client for Python threads, unchanged (P-SUB-1, P-CEV-2, P-PRES-2, P-SUB-4).

Prints `ready` when the server may be restarted, `ok` at the end. pysher sends a subscribe before it takes notice of the
channel, so an answer may come too early for it: the script learns from the HTTP API that a subscription stands.
"""

import json
import queue
import threading
import time
from functools import partial

import pysher
import rig
from rig import PATIENCE_S, RECONNECT_S, server_sdk

SERVER = server_sdk()
shown = partial(rig.shown, "pysher")


def connect(user):
    client = pysher.Pusher(
        rig.KEY,
        secure=False,
        secret=rig.SECRET,
        custom_host=rig.HOST,
        port=rig.PORT,
        user_data={"user_id": user, "user_info": {"name": f"User {user}"}},
        reconnect_interval=1,
        auto_sub=True,
    )
    connected = threading.Event()
    client.connection.bind("pusher:connection_established", lambda _: connected.set())
    client.connect()
    assert connected.wait(PATIENCE_S), "no connection"
    return client


def until(what, condition, patience_s=PATIENCE_S):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.02)


def subscribers(name):
    return SERVER.channel_info(name, ["subscription_count"]).get("subscription_count", 0)


def inbox(channel, event):
    received = queue.Queue()
    channel.bind(event, received.put)
    return received


def main():
    first, second = connect("1"), connect("2")
    for name, feature in [("news", "public channels"), ("private-orders", "private channels")]:
        boxes = [inbox(client.subscribe(name), "tick") for client in (first, second)]
        until(name, lambda: subscribers(name) == 2)
        for index in range(20):
            SERVER.trigger(name, "tick", {"index": index})
        for box in boxes:
            assert [json.loads(box.get(timeout=PATIENCE_S)) for _ in range(20)] == [{"index": n} for n in range(20)]
        shown(feature)

    room = first.subscribe("presence-room")
    until("the first member", lambda: subscribers("presence-room") == 1)
    added, removed = inbox(room, "pusher_internal:member_added"), inbox(room, "pusher_internal:member_removed")
    second.subscribe("presence-room")
    assert json.loads(added.get(timeout=PATIENCE_S)) == {"user_id": "2", "user_info": {"name": "User 2"}}
    until("the second member", lambda: subscribers("presence-room") == 2)
    assert sorted(user["id"] for user in SERVER.users_info("presence-room")["users"]) == ["1", "2"]
    shown("presence channels")

    typing = inbox(second.channel("private-orders"), "client-typing")
    first.channel("private-orders").trigger("client-typing", {"by": 1})
    assert json.loads(typing.get(timeout=PATIENCE_S)) == {"by": 1}
    shown("client events")

    second.unsubscribe("presence-room")
    assert json.loads(removed.get(timeout=PATIENCE_S)) == {"user_id": "2"}
    shown("unsubscribe")

    # pysher subscribes again without a signature, and treats the refusal of a private channel as final.
    for name in ("private-orders", "presence-room"):
        first.unsubscribe(name)
    # Its own `disconnect` may wait for its thread forever, so the other client leaves its channels instead.
    for name in ("private-orders", "news"):
        second.unsubscribe(name)
    news, before = inbox(first.channel("news"), "again"), first.connection.socket_id
    print("ready", flush=True)
    until("a new connection", lambda: first.connection.socket_id != before, RECONNECT_S)
    until("the new subscription", lambda: subscribers("news") == 1)
    SERVER.trigger("news", "again", {"after": "restart"})
    assert json.loads(news.get(timeout=PATIENCE_S)) == {"after": "restart"}
    shown("reconnect")
    print("ok", flush=True)


main()
