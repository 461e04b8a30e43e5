"""The stock Python server SDK does all that it offers (P-SDK-15, P-SDK-18, P-SDK-19, P-HTTP-1 to P-HTTP-5, P-HTTP-10,
P-AUTH-1, P-AUTH-2, P-AUTH-4, P-SDK-25).

    server_sdk.py CHANNEL... EXCLUDED_SOCKET_ID SIGNED_SOCKET_ID

Of the channels the first is public, the third a presence channel with the users 1 to 6, the last one encrypted.
Prints what it signed for the last socket id, waits until somebody subscribed to `ready`, publishes, and prints the list
of `[event, data]` that each subscriber of each channel must get.
"""

import json
import sys
import time
from functools import partial

import pusher
import rig

*ALL, EXCLUDED, SIGNED_SOCKET = sys.argv[1:]
*PLAIN, VAULT = ALL
ROOM = PLAIN[2]
client = partial(rig.server_sdk, encryption_master_key_base64=rig.MASTER_KEY)
SERVER = client()
shown = partial(rig.shown, "pusher (Python)")


def main():
    signing()
    wanted = {name: [] for name in ALL}
    publishing(wanted)
    queries()
    refusals()
    users()
    for name in ALL:
        SERVER.trigger(name, "end", {})
    print(json.dumps(wanted), flush=True)
    print("ok", flush=True)


def signing():
    member = {"user_id": "signed", "user_info": {"name": "Signed"}}
    answers = {
        "private-signed": SERVER.authenticate("private-signed", SIGNED_SOCKET),
        "presence-signed": SERVER.authenticate("presence-signed", SIGNED_SOCKET, member),
        "user": SERVER.authenticate_user(SIGNED_SOCKET, {"id": "signed"}),
    }
    print(json.dumps(answers), flush=True)
    deadline = time.monotonic() + 10
    while not SERVER.channel_info("ready")["occupied"]:
        assert time.monotonic() < deadline, "nobody subscribed to `ready`"
        time.sleep(0.02)
    shown("authorize private", "authorize presence", "authenticate a user")


def publishing(wanted):
    def expect(names, event, data):
        for name in names:
            wanted[name].append([event, data])

    for index in range(10):
        data = {"index": index, "text": 'é 🦀 "quoted" + % &'}
        assert SERVER.trigger(PLAIN, "tick", data) == {}
        expect(PLAIN, "tick", data)
    assert SERVER.trigger(PLAIN[0], "plain", "a string") == {}
    expect(PLAIN[:1], "plain", "a string")
    shown("trigger", "several channels")

    assert SERVER.trigger_batch([{"channel": name, "name": "batch", "data": {"n": 1}} for name in PLAIN]) == {}
    expect(PLAIN, "batch", {"n": 1})
    shown("batch")

    assert SERVER.trigger(PLAIN, "others", {}, EXCLUDED) == {}
    shown("leave a socket out")

    # `trigger` has no parameter for it; a batch passes it on.
    asked = [{"channel": name, "name": "counted", "data": {}, "info": "user_count"} for name in (PLAIN[0], ROOM)]
    assert SERVER.trigger_batch(asked) == {"batch": [{}, {"user_count": 6}]}
    expect([PLAIN[0], ROOM], "counted", {})
    shown("info in the answer")

    SERVER.trigger(VAULT, "opened", {"pin": 1234})
    expect([VAULT], "opened", {"pin": 1234})
    shown("encrypted events")


def queries():
    presence = SERVER.channels_info("presence-", ["user_count"])["channels"]
    assert presence[ROOM] == {"user_count": 6}, presence
    assert set(ALL + ["ready"]) <= set(SERVER.channels_info()["channels"])
    shown("list channels")
    one = SERVER.channel_info(ROOM, ["user_count", "subscription_count"])
    assert one == {"occupied": True, "user_count": 6, "subscription_count": 6}, one
    assert SERVER.channel_info("nobody-here") == {"occupied": False}
    shown("one channel")
    users = SERVER.users_info(ROOM)["users"]
    assert sorted(user["id"] for user in users) == ["1", "2", "3", "4", "5", "6"], users
    shown("users of a channel")


def users():
    """The signed socket gets the event, and is ended."""
    SERVER.send_to_user("signed", "mail", {"unread": 3})
    shown("send to a user")
    assert SERVER.terminate_user_connections("signed") == {}
    shown("terminate a user")


def refusals():
    """Refusals raise what the SDK documents for their status."""
    try:
        SERVER.trigger("a-channel", "pusher:reserved", {})
        raise AssertionError("a reserved name was published")
    except pusher.errors.PusherBadRequest as error:
        assert str(error).strip(), "the reason is told"
    try:
        client(secret="not-the-secret").trigger("a-channel", "event", {})
        raise AssertionError("a wrong secret published")
    except pusher.errors.PusherBadAuth:
        pass
    shown("refusals")


main()
