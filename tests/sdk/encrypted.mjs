// The stock server SDK encrypts, stock pusher-js with encryption decrypts; the server between them passes the data byte for byte
// and knows no key. P-ENC-1, P-ENC-2, P-ENC-3, P-AUTH-1, R-AUTHREQ-3.
//
// `pusher-js/with-encryption` is a build for pages: the globals of a page are borrowed from the build for Node.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import express from 'express';
import NodePusher from 'pusher-js';
import { adopt, clientOptions, connect, connected, key, listen, main, once, serverSdk } from './rig.mjs';

globalThis.window = globalThis;
globalThis.self = globalThis;
globalThis.WebSocket = NodePusher.Runtime.getWebSocketAPI();
globalThis.XMLHttpRequest = NodePusher.Runtime.getXHRAPI();
globalThis.document = { body: {}, location: { protocol: 'http:' } };
globalThis.navigator ??= {};
const { default: Pusher } = await import('pusher-js/with-encryption/index.js');

main(async () => {
  // The check of P-ENC-2, with the key of zeros.
  const zeros = serverSdk(Buffer.alloc(32).toString('base64')).authorizeChannel('1.1', 'private-encrypted-a');
  assert.equal(zeros.shared_secret, 'P6p55DZY9I5G6p7ZDYT+USFMFWC0qykLs4vSk5z/lWI=');

  const server = serverSdk(randomBytes(32).toString('base64'));
  const endpoint = await customer(server);
  const authorization = { endpoint, transport: 'ajax' };
  const clients = [1, 2].map(() => adopt(new Pusher(key, { ...clientOptions, channelAuthorization: authorization })));
  for (const name of ['private-encrypted-orders', 'private-encrypted-cache-orders']) {
    const channels = clients.map((client) => client.subscribe(name));
    await Promise.all(channels.map((channel) => once(channel, 'pusher:subscription_succeeded')));
    // P-ENC-1: a client without the secret sees the complete ciphertext and nothing else.
    const blind = await eavesdropper(server, name);
    for (const data of [{ text: 'é 🦀 "quoted"' }, 'a string', 'x'.repeat(5_000)]) {
      const decrypted = channels.map((channel) => once(channel, 'order'));
      const seen = blind();
      const answer = await server.trigger(name, 'order', data);
      assert.equal(answer.status, 200);
      for (const clear of await Promise.all(decrypted)) assert.deepEqual(clear, data);
      const envelope = JSON.parse(await seen);
      assert.deepEqual(Object.keys(envelope).sort(), ['ciphertext', 'nonce']);
      assert.equal(Buffer.from(envelope.nonce, 'base64').length, 24);
    }
  }
  await cached(server, authorization);
});

/** A later subscriber decrypts the cached event (P-CACHE-2); a cache miss is the server's and not ciphertext (P-ENC-3). */
async function cached(server, authorization) {
  const late = adopt(new Pusher(key, { ...clientOptions, channelAuthorization: authorization }));
  const order = late.subscribe('private-encrypted-cache-orders');
  assert.equal(await once(order, 'order'), 'x'.repeat(5_000));
  const empty = late.subscribe('private-encrypted-cache-empty');
  const errors = [];
  empty.bind('pusher:error', (error) => errors.push(error));
  await once(empty, 'pusher:cache_miss');
  const first = once(empty, 'first');
  await server.trigger('private-encrypted-cache-empty', 'first', { ok: true });
  assert.deepEqual(await first, { ok: true });
  assert.deepEqual(errors, []);
}

/** The customer's endpoint, whose answer includes the secret of the channel. */
function customer(server) {
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.post('/pusher/auth', (request, response) => {
    const answer = server.authorizeChannel(request.body.socket_id, request.body.channel_name);
    assert.ok(answer.shared_secret);
    response.json(answer);
  });
  return listen(app, '/pusher/auth');
}

/** A client that is subscribed by hand and does not decrypt; returns the data of the next event unchanged. */
async function eavesdropper(server, name) {
  const client = connect('', '');
  const socketId = await connected(client);
  const waiting = [];
  let subscribed;
  const ready = new Promise((resolve) => (subscribed = resolve));
  client.connection.bind('message', ({ event, channel, data }) => {
    if (channel !== name) return;
    if (event === 'pusher_internal:subscription_succeeded') subscribed();
    if (event === 'order') waiting.shift()?.(typeof data === 'string' ? data : JSON.stringify(data));
  });
  const { auth } = server.authorizeChannel(socketId, name);
  client.send_event('pusher:subscribe', { auth, channel: name });
  await ready;
  return () => new Promise((resolve) => waiting.push(resolve));
}
