// laravel-echo over pusher-js with the broadcasters `pusher` and `reverb`: public, private and presence channels, its
// event names, whispers, errors. P-CFG-2, P-CFG-8, P-CFG-9, P-AUTH-7, P-LIM-1, P-CEV-2, P-FAIL-2.

import assert from 'node:assert/strict';
import Echo from 'laravel-echo';
import { authServer, clientOptions, EchoPusher, key, main, server, shown, within } from './rig.mjs';

main(async () => {
  const authEndpoint = await authServer('/broadcasting/auth');
  for (const broadcaster of ['pusher', 'reverb']) {
    const echo = (user) =>
      new Echo({ broadcaster, key, ...clientOptions, authEndpoint, auth: { headers: { 'X-User': user } }, Pusher: EchoPusher });
    await scenario(broadcaster, echo('1'), echo('2'));
  }
});

async function scenario(broadcaster, first, second) {
  const name = (channel) => `${broadcaster}.${channel}`;
  const both = [first, second];
  const subscribed = (channel) => within(`${channel.name}`, new Promise((resolve) => channel.subscribed(resolve)));

  const publics = both.map((echo) => echo.channel(name('orders')));
  const privates = both.map((echo) => echo.private(name('order.7')));
  await Promise.all([...publics, ...privates].map(subscribed));

  // P-LIM-1: Laravel's event names hold backslashes; a leading dot is literal.
  const heard = (channel, event) => within(event, new Promise((resolve) => channel.listen(event, resolve)));
  const shipped = [...publics, ...privates].map((channel) => heard(channel, 'OrderShipped'));
  const literal = privates.map((channel) => heard(channel, '.order.shipped'));
  await server.trigger([name('orders'), `private-${name('order.7')}`], 'App\\Events\\OrderShipped', { id: 7 });
  await server.trigger(`private-${name('order.7')}`, 'order.shipped', { id: 8 });
  for (const data of await Promise.all(shipped)) assert.deepEqual(data, { id: 7 });
  for (const data of await Promise.all(literal)) assert.deepEqual(data, { id: 8 });

  const whisper = within('whisper', new Promise((resolve) => privates[1].listenForWhisper('typing', resolve)));
  privates[0].whisper('typing', { name: 'first' });
  assert.deepEqual(await whisper, { name: 'first' });

  // P-CFG-9: members are read from the roster's hash.
  const room = first.join(name('room'));
  const here = await within('here', new Promise((resolve) => room.here(resolve)));
  assert.deepEqual(here, [{ name: 'User 1' }]);
  const joining = within('joining', new Promise((resolve) => room.joining(resolve)));
  const leaving = within('leaving', new Promise((resolve) => room.leaving(resolve)));
  const together = await within('here', new Promise((resolve) => second.join(name('room')).here(resolve)));
  assert.deepEqual(together.map((member) => member.name).sort(), ['User 1', 'User 2']);
  assert.deepEqual(await joining, { name: 'User 2' });
  second.leave(name('room'));
  assert.deepEqual(await leaving, { name: 'User 2' });

  const refused = first.private(name('forbidden'));
  const error = await within('error', new Promise((resolve) => refused.error(resolve)));
  assert.equal(error.status, 403);

  // After `leave` no event arrives any more: an event published later to another channel arrives alone.
  first.leave(name('orders'));
  const late = heard(privates[0], '.late');
  publics[0].listen('.early', () => assert.fail('an event after leave'));
  await server.trigger(name('orders'), 'early', {});
  await server.trigger(`private-${name('order.7')}`, 'late', {});
  await late;

  const sdk = `laravel-echo, broadcaster ${broadcaster}`;
  shown(sdk, 'public channels', 'private channels', 'presence channels', 'client events', 'refused channels', 'unsubscribe');
  first.disconnect();
  second.disconnect();
}
