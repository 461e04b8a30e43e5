// Stock pusher-js through two restarts of the server: it reconnects by itself, subscribes everything again with fresh signatures,
// and gets events published from then on once and in order. P-SUB-4, P-CLOSE-1. Prints `ready` when the server may be restarted,
// `ok` at the end.

import assert from 'node:assert/strict';
import Echo from 'laravel-echo';
import {
  authServer, clientOptions, collect, connect, connected, EchoPusher, key, main, once, server, shown, subscribed,
} from './rig.mjs';

// pusher-js tries again after 1 s (at once after 4200), and if that fails only when its attempt times out, 15 s later.
const RECONNECT_MS = 40_000;
const NAMES = ['news', 'private-orders', 'presence-room'];

main(async () => {
  const endpoint = await authServer('/pusher/auth');
  const clients = ['1', '2', '3', '4'].map((user) => connect(endpoint, user));
  let ids = await Promise.all(clients.map(connected));
  const channels = await Promise.all(clients.map((client) => Promise.all(NAMES.map((name) => subscribed(client, name)))));
  // laravel-echo with both broadcasters reconnects as well.
  const echoes = ['pusher', 'reverb'].map((broadcaster, index) => {
    const auth = { headers: { 'X-User': String(5 + index) } };
    return new Echo({ broadcaster, key, ...clientOptions, authEndpoint: endpoint, auth, Pusher: EchoPusher });
  });
  const echoed = echoes.map((echo) => [echo.channel('news').subscription, echo.private('orders').subscription]).flat();
  await Promise.all(echoed.filter((channel) => !channel.subscribed).map((channel) => once(channel, 'pusher:subscription_succeeded')));
  for (let round = 0; round < 2; round += 1) {
    const last = `end-${round}`;
    const all = [...channels.flat(), ...echoed];
    const back = all.map((channel) => once(channel, 'pusher:subscription_succeeded', RECONNECT_MS));
    console.log('ready');
    await Promise.all(back);
    const fresh = await Promise.all(clients.map(connected));
    for (const id of fresh) assert.ok(!ids.includes(id), 'a socket id came back');
    ids = fresh;
    const got = all.map((channel) => collect(channel, last));
    for (let index = 0; index < 20; index += 1) await server.trigger(NAMES, 'tick', { round, index });
    await server.trigger(NAMES, last, {});
    const wanted = Array.from({ length: 20 }, (_, index) => ['tick', { round, index }]);
    for (const collector of got) assert.deepEqual(await collector.ended(), wanted);
    assert.equal(channels[0][2].members.count, clients.length);
  }
  for (const sdk of ['pusher-js', 'laravel-echo, broadcaster pusher', 'laravel-echo, broadcaster reverb']) {
    shown(sdk, 'reconnect');
  }
});
