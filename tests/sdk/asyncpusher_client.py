"""asyncpusher, a client for asyncio, unchanged (P-SUB-1, P-CEV-2, P-PRES-2, P-CACHE-2, P-SUB-4).

Prints `ready` when the server may be restarted, `ok` at the end.
"""

import asyncio
from functools import partial

import rig
from asyncpusher.pusher import Pusher
from rig import PATIENCE_S, RECONNECT_S, server_sdk

SERVER = server_sdk()
shown = partial(rig.shown, "asyncpusher")


async def publish(channel, event, data):
    await asyncio.to_thread(SERVER.trigger, channel, event, data)


async def connect(user):
    async def authorize(data):
        member = {"user_id": user, "user_info": {"name": f"User {user}"}}
        member = member if data["channel_name"].startswith("presence-") else None
        return SERVER.authenticate(data["channel_name"], data["socket_id"], member)

    client = Pusher(
        rig.KEY,
        secure=False,
        custom_host=rig.HOST,
        custom_port=rig.PORT,
        channel_authenticator=authorize,
        auto_sub=True,
    )
    await asyncio.wait_for(client.connect(), PATIENCE_S)
    return client


def inbox(channel, event):
    received = asyncio.Queue()

    async def put(data):
        received.put_nowait(data)

    channel.bind(event, put)
    return received


async def due(box, patience_s=PATIENCE_S):
    return await asyncio.wait_for(box.get(), patience_s)


async def subscribe(client, name, *events):
    channel = await client.subscribe(name)
    # Nothing is awaited in between, so the answer cannot come before the bind.
    succeeded, boxes = inbox(channel, "pusher_internal:subscription_succeeded"), [inbox(channel, event) for event in events]
    return channel, await due(succeeded), boxes


async def main():
    first, second = await asyncio.gather(connect("1"), connect("2"))
    channels = {}
    for name, feature in [("news", "public channels"), ("private-orders", "private channels")]:
        both = [await subscribe(client, name, "tick") for client in (first, second)]
        channels[name] = [channel for channel, _, _ in both]
        for index in range(20):
            await publish(name, "tick", {"index": index})
        for _, _, [box] in both:
            assert [await due(box) for _ in range(20)] == [{"index": n} for n in range(20)]
        shown(feature)

    added, removed = "pusher_internal:member_added", "pusher_internal:member_removed"
    _, roster, [added, removed] = await subscribe(first, "presence-room", added, removed)
    assert roster["presence"]["hash"] == {"1": {"name": "User 1"}}
    _, roster, _ = await subscribe(second, "presence-room")
    assert roster["presence"]["count"] == 2
    assert await due(added) == {"user_id": "2", "user_info": {"name": "User 2"}}
    shown("presence channels")

    mine, theirs = channels["private-orders"]
    typing = inbox(theirs, "client-typing")
    await mine.trigger({"event": "client-typing", "data": {"by": 1}})
    assert await due(typing) == {"by": 1}
    shown("client events")

    await second.unsubscribe("presence-room")
    assert await due(removed) == {"user_id": "2"}
    shown("unsubscribe")

    await publish("cache-weather", "report", {"sky": "grey"})
    _, _, [report] = await subscribe(first, "cache-weather", "report")
    assert await due(report) == {"sky": "grey"}
    shown("cache channels")

    back = inbox(channels["private-orders"][0], "pusher_internal:subscription_succeeded")
    again = inbox(channels["private-orders"][0], "again")
    print("ready", flush=True)
    await due(back, RECONNECT_S)
    await publish("private-orders", "again", {"after": "restart"})
    assert await due(again) == {"after": "restart"}
    shown("reconnect")
    print("ok", flush=True)
    await asyncio.gather(first.disconnect(), second.disconnect())


asyncio.run(main())
