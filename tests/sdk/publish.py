"""The stock Python server SDK publishes in every way it has (P-SDK-15, P-SDK-18, P-SDK-19, P-HTTP-1, P-HTTP-2).

    publish.py CHANNEL... EXCLUDED_SOCKET_ID

Prints the list of `[event, data]` that each subscriber must get, and the one that the excluded socket must get.
"""

import json
import os
import sys

import pusher

*CHANNELS, EXCLUDED = sys.argv[1:]


def main():
    client = pusher.Pusher(
        app_id=os.environ["RELAY_APP_ID"],
        key=os.environ["RELAY_KEY"],
        secret=os.environ["RELAY_SECRET"],
        host=os.environ["RELAY_HOST"],
        port=int(os.environ["RELAY_PORT"]),
        ssl=False,
    )
    everyone = []
    for index in range(25):
        data = {"index": index, "text": 'é 🦀 "quoted"'}
        assert client.trigger(CHANNELS, "tick", data) == {}
        everyone.append(["tick", data])
    assert client.trigger(CHANNELS[0], "plain", "a string") == {}
    assert client.trigger_batch([{"channel": name, "name": "batch", "data": {"n": n}} for n in range(3) for name in CHANNELS]) == {}
    batch = [["batch", {"n": n}] for n in range(3)]
    assert client.trigger(CHANNELS, "others", {}, EXCLUDED) == {}
    assert client.trigger(CHANNELS, "end", {}) == {}
    lists = {}
    for name in CHANNELS:
        plain = [["plain", "a string"]] if name == CHANNELS[0] else []
        lists[name] = everyone + plain + batch
    refused(client)
    print(json.dumps(lists))


def refused(client):
    """Refusals raise what the SDK documents for their status."""
    try:
        client.trigger("a-channel", "pusher:reserved", {})
        raise AssertionError("a reserved name was published")
    except pusher.errors.PusherBadRequest as error:
        assert str(error).strip(), "the reason is told"
    stranger = pusher.Pusher(
        app_id=os.environ["RELAY_APP_ID"],
        key=os.environ["RELAY_KEY"],
        secret="not-the-secret",
        host=os.environ["RELAY_HOST"],
        port=int(os.environ["RELAY_PORT"]),
        ssl=False,
    )
    try:
        stranger.trigger("a-channel", "event", {})
        raise AssertionError("a wrong secret published")
    except pusher.errors.PusherBadAuth:
        pass


main()
