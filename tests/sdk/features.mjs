// Stock pusher-js and laravel-echo on encrypted and cache channels and with subscription counts. P-ENC-1, P-ENC-2,
// P-CACHE-1, P-CACHE-2, P-COUNT-1, P-OUT-7, P-OUT-8.

import assert from 'node:assert/strict';
import Echo from 'laravel-echo';
import { authServer, clientOptions, connect, connected, EchoPusher, key, main, once, server, shown, subscribed, within } from './rig.mjs';

main(async () => {
  const endpoint = await authServer('/pusher/auth');
  const clients = ['1', '2'].map((user) => connect(endpoint, user));
  await Promise.all(clients.map(connected));
  await encrypted(clients);
  for (const broadcaster of ['pusher', 'reverb']) await encryptedEcho(broadcaster, endpoint);
  await cached(clients);
  await counted(clients);
});

/** Both decrypt data that the server SDK encrypted, and do not treat unencrypted data as a message. */
async function encrypted(clients) {
  const name = 'private-encrypted-vault';
  const channels = await Promise.all(clients.map((client) => subscribed(client, name)));
  const heard = channels.map((channel) => once(channel, 'opened'));
  await server.trigger(name, 'opened', { pin: 'é 🦀 1234' });
  for (const data of await Promise.all(heard)) assert.deepEqual(data, { pin: 'é 🦀 1234' });
  shown('pusher-js', 'encrypted channels');
}

async function encryptedEcho(broadcaster, authEndpoint) {
  const auth = { headers: { 'X-User': '3' } };
  const echo = new Echo({ broadcaster, key, ...clientOptions, authEndpoint, auth, Pusher: EchoPusher });
  const channel = echo.encryptedPrivate('vault');
  await within('subscribed', new Promise((resolve) => channel.subscribed(resolve)));
  const heard = within('opened', new Promise((resolve) => channel.listen('.opened', resolve)));
  await server.trigger('private-encrypted-vault', 'opened', { pin: broadcaster });
  assert.deepEqual(await heard, { pin: broadcaster });
  shown(`laravel-echo, broadcaster ${broadcaster}`, 'encrypted channels');
  echo.disconnect();
}

/** A later subscriber gets the last event; where there is none, a miss. */
async function cached([first, second]) {
  await subscribed(first, 'cache-weather');
  await server.trigger('cache-weather', 'report', { sky: 'blue' });
  await server.trigger('cache-weather', 'report', { sky: 'grey' });
  assert.deepEqual(await once(second.subscribe('cache-weather'), 'report'), { sky: 'grey' });
  await once(second.subscribe('private-cache-empty'), 'pusher:cache_miss');
  shown('pusher-js', 'cache channels');
}

/** Both get the count of subscribers, also when one has left. */
async function counted([first, second]) {
  const channel = first.subscribe('crowd');
  assert.deepEqual(await once(channel, 'pusher:subscription_count'), { subscription_count: 1 });
  const told = once(channel, 'pusher:subscription_count');
  second.subscribe('crowd');
  assert.deepEqual(await told, { subscription_count: 2 });
  assert.equal(channel.subscriptionCount, 2);
  const less = once(channel, 'pusher:subscription_count');
  second.unsubscribe('crowd');
  assert.deepEqual(await less, { subscription_count: 1 });
  shown('pusher-js', 'subscription count');
}
