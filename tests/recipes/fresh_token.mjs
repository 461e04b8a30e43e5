// Replaces the page and the application around a snippet of docs/recipes: the snippet's client must send the token of the
// moment with every request, also after a reconnect (R-RECIPE-1, R-RECIPE-2).
//
//   fresh_token.mjs SNIPPET HEADER PREFIX

import assert from 'node:assert/strict';
import express from 'express';
import { adopt, key, listen, main, once, server } from './rig.mjs';

const [snippet, header, prefix] = process.argv.slice(2);

main(async () => {
  let token = 'of-page-load';
  const seen = [];
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.post('/auth', (request, response) => {
    seen.push(request.get(header));
    if (request.get(header) !== prefix + token) return response.sendStatus(401);
    return response.json(server.authorizeChannel(request.body.socket_id, request.body.channel_name));
  });

  // What the snippets take from their page.
  globalThis.endpoint = await listen(app, '/auth');
  globalThis.KEY = key;
  globalThis.HOST = process.env.RELAY_HOST;
  globalThis.currentToken = () => token;
  globalThis.window = globalThis;
  globalThis.document = {
    querySelector: (selector) => {
      assert.equal(selector, 'meta[name="csrf-token"]');
      return { content: token, getAttribute: () => token };
    },
  };
  globalThis.environment = {
    VITE_PUSHER_APP_KEY: key,
    VITE_PUSHER_APP_CLUSTER: 'mt1',
    VITE_PUSHER_HOST: process.env.RELAY_HOST,
    VITE_PUSHER_PORT: process.env.RELAY_PORT,
    VITE_PUSHER_SCHEME: 'http',
  };
  await import(snippet);
  const client = adopt(globalThis.client);

  const channel = client.subscribe('private-user.7');
  await once(channel, 'pusher:subscription_succeeded');
  assert.deepEqual(seen, [`${prefix}of-page-load`]);

  token = 'renewed';
  const again = once(channel, 'pusher:subscription_succeeded');
  client.disconnect();
  client.connect();
  await again;
  assert.deepEqual(seen, [`${prefix}of-page-load`, `${prefix}renewed`]);
});
