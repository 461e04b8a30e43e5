// A JavaScript server SDK uses all of its features (P-SDK-15, P-SDK-19, P-HTTP-1 to P-HTTP-5, P-HTTP-6, P-AUTH-1, P-AUTH-2,
// P-AUTH-4, P-SDK-25).
//
//   server_sdk.mjs PACKAGE NAME CHANNEL... EXCLUDED_SOCKET_ID SIGNED_SOCKET_ID
//
// Of the channels the first is public, the third a presence channel with the users 1 to 6, the last one encrypted.
// Prints its signatures for the last socket id, waits until somebody subscribed to `ready`, publishes, and prints the list of
// `[event, data]` that each subscriber of each channel must get.

import assert from 'node:assert/strict';
import { main, masterKey, shown as report, within } from './rig.mjs';

const [packageName, name, ...rest] = process.argv.slice(2);
const [excluded, signedSocket] = rest.slice(-2);
const all = rest.slice(0, -2);
const [plain, vault] = [all.slice(0, -1), all.at(-1)];
const room = plain[2];
const shown = (...features) => report(name, ...features);

const { default: Pusher } = await import(packageName);
const { RELAY_HOST, RELAY_PORT, RELAY_APP_ID, RELAY_KEY, RELAY_SECRET } = process.env;
const options = {
  appId: RELAY_APP_ID, key: RELAY_KEY, secret: RELAY_SECRET, host: RELAY_HOST, port: RELAY_PORT, useTLS: false,
  encryptionMasterKeyBase64: masterKey,
};
const server = new Pusher(options);
const get = async (path, params) => (await server.get({ path, params })).json();

main(async () => {
  await signing();
  const wanted = Object.fromEntries(all.map((channel) => [channel, []]));
  await publishing(wanted);
  await queries();
  await refusals();
  await users();
  for (const channel of all) await server.trigger(channel, 'end', {});
  console.log(JSON.stringify(wanted));
});

async function signing() {
  const member = { user_id: 'signed', user_info: { name: 'Signed' } };
  const answers = {
    'private-signed': await server.authorizeChannel(signedSocket, 'private-signed'),
    'presence-signed': await server.authorizeChannel(signedSocket, 'presence-signed', member),
    user: await server.authenticateUser(signedSocket, { id: 'signed' }),
  };
  console.log(JSON.stringify(answers));
  const occupied = async () => {
    while (!(await get('/channels/ready')).occupied) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  await within('ready', occupied());
  shown('authorize private', 'authorize presence', 'authenticate a user');
}

/** The signed socket gets the event, and is ended. */
async function users() {
  await server.sendToUser('signed', 'mail', { unread: 3 });
  shown('send to a user');
  assert.equal((await server.terminateUserConnections('signed')).status, 200);
  shown('terminate a user');
}

async function publishing(wanted) {
  const expect = (channels, event, data) => channels.forEach((channel) => wanted[channel].push([event, data]));
  for (let index = 0; index < 10; index += 1) {
    const data = { index, text: 'é 🦀 "quoted" + % &' };
    const response = await server.trigger(plain, 'tick', data);
    assert.equal(response.status, 200);
    assert.deepEqual(await response.json(), {});
    expect(plain, 'tick', data);
  }
  await server.trigger(plain[0], 'plain', 'a string');
  expect([plain[0]], 'plain', 'a string');
  shown('trigger', 'several channels');

  const batch = plain.map((channel, index) => ({ channel, name: 'batch', data: { index } }));
  batch.forEach(({ channel, data }) => expect([channel], 'batch', data));
  await server.triggerBatch(batch);
  shown('batch');

  await server.trigger(plain, 'others', {}, { socket_id: excluded });
  shown('leave a socket out');

  const answer = await server.trigger([plain[0], room], 'counted', {}, { info: 'user_count,subscription_count' });
  expect([plain[0], room], 'counted', {});
  const counts = { [plain[0]]: { subscription_count: 6 }, [room]: { user_count: 6, subscription_count: 6 } };
  assert.deepEqual(await answer.json(), { channels: counts });
  shown('info in the answer');

  await server.trigger(vault, 'opened', { pin: 1234 });
  expect([vault], 'opened', { pin: 1234 });
  shown('encrypted events');
}

async function queries() {
  const presence = await get('/channels', { filter_by_prefix: 'presence-', info: 'user_count' });
  assert.deepEqual(presence.channels[room], { user_count: 6 });
  const listed = Object.keys((await get('/channels')).channels);
  for (const channel of [...all, 'ready']) assert.ok(listed.includes(channel), channel);
  shown('list channels');
  const one = await get(`/channels/${room}`, { info: 'user_count,subscription_count' });
  assert.deepEqual(one, { occupied: true, user_count: 6, subscription_count: 6 });
  assert.deepEqual(await get('/channels/nobody-here'), { occupied: false });
  shown('one channel');
  const { users } = await get(`/channels/${room}/users`);
  assert.deepEqual(users.map(({ id }) => id).sort(), ['1', '2', '3', '4', '5', '6']);
  shown('users of a channel');
}

async function refusals() {
  const status = (wanted) => (refusal) => refusal.status === wanted && refusal.body.trim() !== '';
  await assert.rejects(server.trigger('a-channel', 'pusher:reserved', {}), status(400));
  await assert.rejects(server.trigger('a-channel', 'large', 'x'.repeat(10_241)), status(413));
  const stranger = new Pusher({ ...options, secret: 'not-the-secret' });
  await assert.rejects(stranger.trigger('a-channel', 'event', {}), status(401));
  shown('refusals');
}
