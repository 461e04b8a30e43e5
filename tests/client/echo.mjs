// laravel-echo over the client, given as `client` and as `Pusher`: public, private and presence channels, whispers,
// refusals. R-CLIENT-8, P-CFG-2.

import assert from 'node:assert/strict';
import Echo from 'laravel-echo';
import Relay from '@relay/client';
import { key, main, place, publish, serve, signed, within } from './rig.mjs';

main(async () => {
  const backend = await serve(({ path, headers, form }) => {
    const channel = form.get('channel_name');
    const user = headers['x-user'];
    if (path !== '/broadcasting/auth' || !user) return 401;
    if (channel.includes('forbidden')) return [403, { message: 'This action is unauthorized.' }];
    return [200, signed(form.get('socket_id'), channel, { user_id: user, user_info: { name: `User ${user}` } })];
  });
  const authEndpoint = `http://127.0.0.1:${backend.port}/broadcasting/auth`;
  const options = (user) => ({ ...place, authEndpoint, auth: { headers: { 'X-User': user } } });
  const byClient = (user) => new Echo({ broadcaster: 'pusher', client: new Relay(key, options(user)) });
  const byClass = (user) => new Echo({ broadcaster: 'pusher', Pusher: Relay, key, ...options(user) });
  for (const [name, echo] of Object.entries({ byClient, byClass })) await scenario(name, echo('1'), echo('2'));
});

async function scenario(prefix, first, second) {
  const both = [first, second];
  const heard = (channel, event) => within(event, new Promise((resolve) => channel.listen(event, resolve)));
  const ready = (channel) => within(channel.name, new Promise((resolve) => channel.subscribed(() => resolve(channel))));
  const orders = await Promise.all(both.map((echo) => ready(echo.channel(`${prefix}.orders`))));
  const order = await Promise.all(both.map((echo) => ready(echo.private(`${prefix}.order.7`))));

  const shipped = [...orders, ...order].map((channel) => heard(channel, 'OrderShipped'));
  for (const channel of [`${prefix}.orders`, `private-${prefix}.order.7`]) {
    await publish(channel, 'App\\Events\\OrderShipped', { id: 7 });
  }
  for (const data of await Promise.all(shipped)) assert.deepEqual(data, { id: 7 });

  const whisper = within('whisper', new Promise((resolve) => order[1].listenForWhisper('typing', resolve)));
  order[0].whisper('typing', { name: 'first' });
  assert.deepEqual(await whisper, { name: 'first' });

  const room = first.join(`${prefix}.room`);
  assert.deepEqual(await within('here', new Promise((resolve) => room.here(resolve))), [{ name: 'User 1' }]);
  const joining = within('joining', new Promise((resolve) => room.joining(resolve)));
  const together = await within('here', new Promise((resolve) => second.join(`${prefix}.room`).here(resolve)));
  assert.deepEqual(together.map((member) => member.name).sort(), ['User 1', 'User 2']);
  assert.deepEqual(await joining, { name: 'User 2' });

  const refused = await within('error', new Promise((resolve) => first.private(`${prefix}.forbidden`).error(resolve)));
  assert.deepEqual([refused.type, refused.status], ['AuthError', 403]);
  assert.match(refused.error, /This action is unauthorized\.$/);
  both.forEach((echo) => echo.disconnect());
}
