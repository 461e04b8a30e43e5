// Stock pusher-js and laravel-echo sign in: events to a user, a watchlist, and the end when the server SDK terminates the user.
// P-USER-1, P-USER-4, P-USER-6, P-WATCH-1, P-SDK-25, P-OUT-9, P-OUT-10.

import assert from 'node:assert/strict';
import express from 'express';
import Echo from 'laravel-echo';
import Pusher from 'pusher-js';
import { clientOptions, connected, EchoPusher, key, main, once, server, shown, within } from './rig.mjs';

main(async () => {
  const endpoint = await userAuthServer();
  const signIn = async (user) => {
    const userAuthentication = { endpoint, transport: 'ajax', headers: { 'X-User': user } };
    const client = new Pusher(key, { ...clientOptions, userAuthentication });
    await connected(client);
    const done = once(client, 'pusher:signin_success');
    client.signin();
    await done;
    assert.equal(client.user.user_data.id, user);
    return client;
  };

  // Anna watches Ben.
  const watching = new Pusher(key, { ...clientOptions, userAuthentication: { endpoint, transport: 'ajax', headers: { 'X-User': 'anna' } } });
  await connected(watching);
  const offline = once(watching.user.watchlist, 'offline');
  watching.signin();
  assert.deepEqual((await offline).user_ids, ['ben']);
  const online = once(watching.user.watchlist, 'online');
  const clients = [await signIn('ben'), await signIn('ben')];
  assert.deepEqual((await online).user_ids, ['ben']);
  shown('pusher-js', 'sign in');

  await Promise.all(clients.map((client) => subscribedToUser(client)));
  const heard = clients.map((client) => once(client.user, 'mail'));
  await server.sendToUser('ben', 'mail', { unread: 3 });
  for (const data of await Promise.all(heard)) assert.deepEqual(data, { unread: 3 });
  shown('pusher-js', 'events to a user');

  const gone = once(watching.user.watchlist, 'offline');
  const ended = clients.map((client) => once(client.connection, 'disconnected'));
  await server.terminateUserConnections('ben');
  await Promise.all(ended);
  assert.deepEqual((await gone).user_ids, ['ben']);
  assert.equal(watching.connection.state, 'connected');
  shown('pusher-js', 'terminated connections', 'watchlist');
  watching.disconnect();

  for (const broadcaster of ['pusher', 'reverb']) await echo(broadcaster, endpoint);
});

async function echo(broadcaster, endpoint) {
  const userAuthentication = { endpoint, transport: 'ajax', headers: { 'X-User': 'carl' } };
  const client = new Echo({ broadcaster, key, ...clientOptions, userAuthentication, Pusher: EchoPusher });
  const { pusher } = client.connector;
  await connected(pusher);
  const done = once(pusher, 'pusher:signin_success');
  client.connector.signin();
  await done;
  shown(`laravel-echo, broadcaster ${broadcaster}`, 'sign in');
  client.disconnect();
}

/** pusher-js subscribes to the user's own channel after it has signed in. */
function subscribedToUser(client) {
  const { serverToUserChannel: channel } = client.user;
  if (channel.subscribed) return channel;
  return once(channel, 'pusher:subscription_succeeded');
}

/** The customer's endpoint (P-AUTH-7). `X-User` replaces the login; Anna watches Ben. */
function userAuthServer() {
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.post('/pusher/user-auth', (request, response) => {
    const id = request.get('X-User');
    if (!id) return response.sendStatus(401);
    const watchlist = id === 'anna' ? { watchlist: ['ben'] } : {};
    return response.json(server.authenticateUser(request.body.socket_id, { id, ...watchlist }));
  });
  const listening = new Promise((resolve) => {
    const listener = app.listen(0, '127.0.0.1', () => {
      listener.unref();
      resolve(`http://127.0.0.1:${listener.address().port}/pusher/user-auth`);
    });
  });
  return within('the endpoint listens', listening);
}
