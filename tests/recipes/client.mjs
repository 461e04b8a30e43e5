// A pusher-js client that subscribes through the recipe whose endpoint is the argument. It lets user 7 into
// `private-user.7` and `presence-lobby` alone (P-AUTH-7, R-RECIPE-5, R-PIT-1).

import assert from 'node:assert/strict';
import { connect, main, once, server, subscribed } from './rig.mjs';

const [endpoint] = process.argv.slice(2);

main(async () => {
  const client = connect(endpoint, '7');
  const channel = await subscribed(client, 'private-user.7');
  const heard = once(channel, 'greeting');
  await server.trigger('private-user.7', 'greeting', { to: 7 });
  assert.deepEqual(await heard, { to: 7 });

  const lobby = await subscribed(client, 'presence-lobby');
  assert.deepEqual(lobby.members.me, { id: '7', info: { name: 'User 7' } });

  assert.equal((await once(client.subscribe('private-user.8'), 'pusher:subscription_error')).status, 403);
  const stranger = connect(endpoint, '').subscribe('private-user.7');
  assert.equal((await once(stranger, 'pusher:subscription_error')).status, 401);
});
