// Stock pusher-js subscribes to a public, a private and a presence channel; the stock server SDK publishes in every
// way it has. P-SDK-1 to P-SDK-10, P-AUTH-7, P-CONN-1, P-HTTP-1, P-HTTP-2, P-PRES-2, P-CEV-2, R-CLIENT-2.

import assert from 'node:assert/strict';
import { authServer, collect, connect, connected, main, once, server, shown, subscribed } from './rig.mjs';

const NAMES = ['news', 'private-orders', 'presence-room'];

main(async () => {
  const endpoint = await authServer('/pusher/auth');
  const clients = ['1', '2', '3', '4', '5'].map((user) => connect(endpoint, user));
  const ids = await Promise.all(clients.map(connected));
  assert.equal(new Set(ids).size, clients.length);
  for (const id of ids) assert.match(id, /^\d+\.\d+$/);

  await presence(clients);
  const channels = [];
  for (const client of clients) {
    channels.push(await Promise.all(NAMES.slice(0, 2).map((name) => subscribed(client, name))));
    channels.at(-1).push(client.channel('presence-room'));
  }
  await publishing(channels, ids);
  await info();
  await clientEvents(channels);
  await refusals(clients[0]);
  await unsubscribing(clients[0], channels);
  shown('pusher-js', 'public channels', 'private channels', 'presence channels', 'client events', 'refused channels');
  shown('pusher-js', 'unsubscribe');
});

/** Members join one by one: every roster is complete, and every member is notified of later ones. */
async function presence(clients) {
  const rooms = [];
  for (const [index, client] of clients.entries()) {
    const told = rooms.map((room) => once(room, 'pusher:member_added'));
    const room = await subscribed(client, 'presence-room');
    const user = String(index + 1);
    assert.equal(room.members.count, index + 1);
    assert.equal(room.members.me.id, user);
    assert.deepEqual(room.members.me.info, { name: `User ${user}` });
    for (const member of await Promise.all(told)) {
      assert.deepEqual(member, { id: user, info: { name: `User ${user}` } });
    }
    rooms.push(room);
  }
  const left = rooms.slice(0, -1).map((room) => once(room, 'pusher:member_removed'));
  clients.at(-1).unsubscribe('presence-room');
  for (const member of await Promise.all(left)) assert.equal(member.id, '5');
  const back = rooms.slice(0, -1).map((room) => once(room, 'pusher:member_added'));
  await subscribed(clients.at(-1), 'presence-room');
  await Promise.all(back);
}

/** Every subscriber gets every event once and in order, except the excluded one. */
async function publishing(channels, ids) {
  const got = channels.map((ours) => ours.map((channel) => collect(channel)));
  const expected = NAMES.map(() => []);
  for (let index = 0; index < 25; index += 1) {
    const response = await server.trigger(NAMES, 'tick', { index, text: 'é 🦀 "quoted"' });
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), {});
    for (const list of expected) list.push(['tick', { index, text: 'é 🦀 "quoted"' }]);
  }
  await server.trigger('news', 'plain', 'a string');
  expected[0].push(['plain', 'a string']);
  const batch = Array.from({ length: 10 }, (_, index) => ({ channel: NAMES[index % 3], name: 'batch', data: { index } }));
  // The SDK turns the data of the passed events into text, in place.
  for (const event of batch) expected[NAMES.indexOf(event.channel)].push(['batch', event.data]);
  await server.triggerBatch(batch);
  // The first client is excluded from these.
  await server.trigger(NAMES, 'others', {}, { socket_id: ids[0] });
  await server.triggerBatch(NAMES.map((channel) => ({ channel, name: 'others', data: {}, socket_id: ids[0] })));
  const many = Array.from({ length: 100 }, (_, index) => (index === 50 ? 'news' : `unheard-${index}`));
  await server.trigger(many, 'wide', 1);
  expected[0].push(['wide', 1]);
  await server.trigger(NAMES, 'end', {});
  for (const [client, collectors] of got.entries()) {
    for (const [index, collector] of collectors.entries()) {
      const others = client === 0 ? [] : [['others', {}], ['others', {}]];
      const wanted = [...expected[index]];
      const at = wanted.findIndex(([event]) => event === 'wide');
      wanted.splice(at === -1 ? wanted.length : at, 0, ...others);
      assert.deepEqual(await collector.ended(), wanted, `client ${client}, ${NAMES[index]}`);
    }
  }
}

async function info() {
  const answer = await server.trigger(['news', 'presence-room'], 'counted', {}, { info: 'user_count,subscription_count' });
  assert.deepEqual(await answer.json(), {
    channels: { news: { subscription_count: 5 }, 'presence-room': { user_count: 5, subscription_count: 5 } },
  });
}

/** A client event reaches all other subscribers, with the sender's id on presence channels, and not its sender. */
async function clientEvents(channels) {
  const [sender, ...others] = channels;
  const heard = others.flatMap((ours) => ours.slice(1).map((channel) => once(channel, 'client-typing')));
  for (const channel of sender.slice(1)) channel.bind('client-typing', () => assert.fail('the sender hears itself'));
  const metadata = new Promise((resolve) => {
    others[0][2].bind('client-typing', (_, meta) => resolve(meta));
  });
  assert.equal(sender[1].trigger('client-typing', { by: 'me' }), true);
  assert.equal(sender[2].trigger('client-typing', { by: 'me' }), true);
  for (const data of await Promise.all(heard)) assert.deepEqual(data, { by: 'me' });
  assert.deepEqual(await metadata, { user_id: '1' });
}

/** A channel that the auth server refuses, or for which it signs another one, is not subscribed. */
async function refusals(client) {
  const channel = client.subscribe('private-forbidden');
  const error = await once(channel, 'pusher:subscription_error');
  assert.equal(error.type, 'AuthError');
  assert.equal(error.status, 403);
  assert.equal(channel.subscribed, false);
  await assert.rejects(server.trigger('news', 'large', 'x'.repeat(10_241)), (refusal) => {
    assert.equal(refusal.status, 413);
    assert.equal(refusal.body, 'The data content of this event exceeds the allowed maximum (10240 bytes).');
    return true;
  });
}

async function unsubscribing(client, channels) {
  const silent = channels[0][0];
  client.unsubscribe('news');
  silent.bind_global((event) => assert.fail(`${event} after unsubscribe`));
  const heard = once(channels[1][0], 'later');
  // The answer to a ping comes after anything that was in flight.
  await server.trigger('news', 'later', {});
  await heard;
}
