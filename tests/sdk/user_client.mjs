// A pusher-js client that subscribes through an auth endpoint, which allows user 7 only `private-user.7` and, where it has one,
// the presence channel LOBBY (P-AUTH-7, R-RECIPE-2, R-RECIPE-4, R-RECIPE-5, R-PIT-1).
//
//   user_client.mjs ENDPOINT [LOBBY]

import assert from 'node:assert/strict';
import { connect, main, once, server, subscribed } from './rig.mjs';

const [endpoint, lobby] = process.argv.slice(2);

main(async () => {
  const client = connect(endpoint, '7');
  const channel = await subscribed(client, 'private-user.7');
  const heard = once(channel, 'greeting');
  await server.trigger('private-user.7', 'greeting', { to: 7 });
  assert.deepEqual(await heard, { to: 7 });

  if (lobby) {
    const { members } = await subscribed(client, lobby);
    assert.deepEqual(members.me, { id: '7', info: { name: 'User 7' } });
  }

  const other = client.subscribe('private-user.8');
  assert.equal((await once(other, 'pusher:subscription_error')).status, 403);
  assert.equal(other.subscribed, false);

  const stranger = connect(endpoint, '').subscribe('private-user.7');
  assert.equal((await once(stranger, 'pusher:subscription_error')).status, 401);
  assert.equal(stranger.subscribed, false);
});
