// Stock pusher-js signs in through a customer's endpoint; the stock server SDKs send to its user and terminate it, and its
// watchers are notified. P-USER-1, P-USER-4, P-USER-5, P-USER-6, P-WATCH-1, P-AUTH-3, P-AUTH-4, P-AUTH-7, P-OUT-9, P-OUT-10,
// P-SDK-10, P-SDK-25, P-HTTP-6, P-HTTP-10. Prints `ready USER` when the Python SDK may greet and end that user.

import assert from 'node:assert/strict';
import express from 'express';
import { connect, connected, main, once, server } from './rig.mjs';

const WATCHLISTS = { ann: ['bob', 'eve'], dan: ['ann'] };

main(async () => {
  const endpoint = await customer();
  const users = {};
  const signIn = async (user) => {
    const client = connect(`${endpoint}/pusher/auth`, user, {
      userAuthentication: { endpoint: `${endpoint}/pusher/user-auth`, transport: 'ajax', headers: { 'X-User': user } },
    });
    users[user] = client;
    const success = signedIn(client);
    client.signin();
    await success;
    assert.equal(client.user.user_data.id, user);
    return client;
  };

  const bob = await signIn('bob');
  await reached(bob, 'bob');
  const watcher = connect(`${endpoint}/pusher/auth`, 'ann', {
    userAuthentication: { endpoint: `${endpoint}/pusher/user-auth`, transport: 'ajax', headers: { 'X-User': 'ann' } },
  });
  const split = [heard(watcher, 'online'), heard(watcher, 'offline')];
  watcher.signin();
  assert.deepEqual(await Promise.all(split), [['bob'], ['eve']]);

  const came = heard(watcher, 'online');
  const eve = await signIn('eve');
  assert.deepEqual(await came, ['eve']);
  await presence(bob, eve);

  const went = heard(watcher, 'offline');
  const ended = once(bob.connection, 'disconnected');
  const error = once(bob.connection, 'error');
  const answer = await server.terminateUserConnections('bob');
  assert.equal(answer.status, 200);
  assert.deepEqual(await answer.json(), {});
  assert.deepEqual((await error).data, { code: 4009, message: 'You got disconnected by the app' });
  await ended;
  assert.deepEqual(await went, ['bob']);

  await refused(endpoint);

  const greeted = once(eve.user, 'greeting');
  const ending = once(eve.connection, 'disconnected');
  const leaving = heard(watcher, 'offline');
  console.log('ready eve');
  assert.deepEqual(await greeted, { from: 'python' });
  await ending;
  assert.deepEqual(await leaving, ['eve']);
  assert.equal(watcher.connection.state, 'connected');
});

/** The customer's server: the header names the user. */
function customer() {
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.post('/pusher/user-auth', (request, response) => {
    const id = request.get('X-User');
    if (!id || id === 'mallory') return response.sendStatus(403);
    const user = { id, user_info: { name: `User ${id}` } };
    if (WATCHLISTS[id]) user.watchlist = WATCHLISTS[id];
    return response.json(server.authenticateUser(request.body.socket_id, user));
  });
  // The member is the signed-in user: `channel_data` is omitted.
  app.post('/pusher/auth', (request, response) => {
    response.json(server.authorizeChannel(request.body.socket_id, request.body.channel_name));
  });
  return new Promise((resolve) => {
    const listener = app.listen(0, '127.0.0.1', () => {
      listener.unref();
      resolve(`http://127.0.0.1:${listener.address().port}`);
    });
  });
}

/** Waits for the success that pusher-js reads and acts on. */
function signedIn(client) {
  return new Promise((resolve) => {
    client.connection.bind('message', (message) => message.event === 'pusher:signin_success' && resolve());
  });
}

/** The users of the next watchlist event of a name. */
async function heard(client, name) {
  const event = await once(client.user.watchlist, name);
  assert.equal(event.name, name);
  return event.user_ids;
}

/** An event sent to a user reaches `user.bind`, once the client has subscribed to the user's channel. */
async function reached(client, user) {
  const greeting = once(client.user, 'greeting');
  while (!client.user.serverToUserChannel?.subscribed) await new Promise((resolve) => setTimeout(resolve, 10));
  const answer = await server.sendToUser(user, 'greeting', { to: user });
  assert.equal(answer.status, 200);
  assert.deepEqual(await greeting, { to: user });
}

async function presence(bob, eve) {
  const first = bob.subscribe('presence-signed-in');
  await once(first, 'pusher:subscription_succeeded');
  assert.equal(first.members.me.id, 'bob');
  assert.deepEqual(first.members.me.info, { name: 'User bob' });
  const added = once(first, 'pusher:member_added');
  const second = eve.subscribe('presence-signed-in');
  await once(second, 'pusher:subscription_succeeded');
  assert.equal(second.members.count, 2);
  assert.deepEqual(await added, { id: 'eve', info: { name: 'User eve' } });
}

/** pusher-js itself reports a refusal of the customer's endpoint; the server refuses a forged signin and keeps the socket. */
async function refused(endpoint) {
  const userAuthentication = { endpoint: `${endpoint}/pusher/user-auth`, transport: 'ajax', headers: { 'X-User': 'mallory' } };
  const stranger = connect('', 'mallory', { userAuthentication });
  const error = once(stranger.user, 'pusher:signin_error');
  stranger.signin();
  assert.equal((await error).status, 403);
  const forged = (_, callback) => callback(null, { auth: `${stranger.key}:${'0'.repeat(64)}`, user_data: '{"id":"ann"}' });
  const forger = connect('', 'forger', { userAuthentication: { customHandler: forged } });
  const told = once(forger.connection, 'error');
  forger.signin();
  const { data } = await told;
  assert.equal(data.code, 4009);
  assert.match(data.message, /^Invalid signature/);
  await connected(forger);
}
