// Many channels at once at an endpoint that takes `channels[]`: as few requests as possible, each channel with a result
// of its own. R-CLIENT-5.

import assert from 'node:assert/strict';
import Relay from '@relay/client';
import { key, main, once, place, serve, signed } from './rig.mjs';

main(async () => {
  const backend = await serve(({ path, form }) => {
    const socketId = form.get('socket_id');
    const one = (name) => {
      if (name.includes('forbidden')) return { status: 403, error: 'forbidden', message: 'not yours' };
      return signed(socketId, name, { user_id: '1' });
    };
    const names = form.getAll('channels[]');
    if (names.length === 0) return [200, one(form.get('channel_name'))];
    if (path === '/single') return [200, one(names[0])];
    const channels = names.filter((name) => !name.includes('lost')).map((name) => [name, one(name)]);
    return [200, { channels: Object.fromEntries(channels) }];
  });
  const connect = (path, options) =>
    new Relay(key, { ...place, authEndpoint: `http://127.0.0.1:${backend.port}${path}`, ...options });
  await fourHundred(backend, connect('/batch', { authBatch: true }));
  await own(backend, connect('/batch', { authBatch: true }));
  await without(backend, connect('/batch', {}));
  await misconfigured(connect('/single', { authBatch: true }));
});

/** 400 channels: 4 requests. A single one later has the plain form. */
async function fourHundred(backend, client) {
  const names = Array.from({ length: 400 }, (_, index) => `private-${index}`);
  const all = names.map((name) => once(client.subscribe(name), 'pusher:subscription_succeeded'));
  await Promise.all(all);
  assert.deepEqual(backend.requests.map(({ form }) => form.getAll('channels[]').length), [100, 100, 100, 100]);
  assert.deepEqual(backend.requests.flatMap(({ form }) => form.getAll('channels[]')), names);
  await once(client.subscribe('private-single'), 'pusher:subscription_succeeded');
  const { form } = backend.requests.at(-1);
  assert.deepEqual([form.get('channel_name'), form.getAll('channels[]')], ['private-single', []]);
  client.disconnect();
  backend.requests.length = 0;
}

/** Each channel gets what it was given: a member, a refusal, or an error if the answer leaves it out. */
async function own(backend, client) {
  await once(client.connection, 'connected');
  const room = client.subscribe('presence-room');
  const outcomes = [
    once(room, 'pusher:subscription_succeeded'),
    once(client.subscribe('private-fine'), 'pusher:subscription_succeeded'),
    once(client.subscribe('private-forbidden'), 'pusher:subscription_error'),
    once(client.subscribe('private-lost'), 'pusher:subscription_error'),
    once(client.subscribe('public'), 'pusher:subscription_succeeded'),
  ];
  // A callback that throws keeps no result from the others.
  const uncaught = new Promise((resolve) => process.once('uncaughtException', resolve));
  room.bind('pusher:subscription_succeeded', () => {});
  client.channel('private-forbidden').bind('pusher:subscription_error', () => {
    throw new Error('of the application');
  });
  const [, , forbidden, lost] = await Promise.all(outcomes);
  assert.equal((await uncaught).message, 'of the application');
  assert.equal(room.members.me.id, '1');
  assert.deepEqual([forbidden.type, forbidden.status], ['AuthError', 403]);
  assert.match(forbidden.error, /answered 403 for private-forbidden: not yours$/);
  assert.deepEqual([lost.type, lost.status], ['AuthError', 200]);
  assert.match(lost.error, /left private-lost out of its answer$/);
  assert.equal(backend.requests.length, 1);
  client.disconnect();
  backend.requests.length = 0;
}

/** A customer's endpoint gets one request per channel, as from pusher-js. */
async function without(backend, client) {
  const names = ['private-1', 'private-2', 'private-3'];
  await Promise.all(names.map((name) => once(client.subscribe(name), 'pusher:subscription_succeeded')));
  assert.deepEqual(backend.requests.map(({ form }) => form.get('channel_name')), names);
  client.disconnect();
}

/** An endpoint that does not know the list is named as the mistake, for each channel and once. */
async function misconfigured(client) {
  const failed = ['private-1', 'private-2'].map((name) => once(client.subscribe(name), 'pusher:subscription_error'));
  for (const error of await Promise.all(failed)) assert.match(error.error, /without an object "channels": set authBatch: false/);
  client.disconnect();
}
