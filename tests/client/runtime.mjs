// The ES module outside of a browser, on Node and on Deno: channels of each kind, signing in, old and new options, and
// what pages see of an endpoint that fails. R-CLIENT-1, R-CLIENT-4, R-CLIENT-6, R-CLIENT-8.

import assert from 'node:assert/strict';
import Relay from '@relay/client';
import { appId, key, main, once, place, publish, serve, signed, signedUser } from './rig.mjs';

const clients = [];

function connect(options) {
  const client = new Relay(key, { ...place, ...options });
  clients.push(client);
  return client;
}

/** What a customer's endpoint answers to these channels: each is a mistake that somebody made. */
const FAILURES = {
  'private-forbidden': [403, { message: 'not yours' }],
  'private-expired': [419],
  'private-broken': [500, '<h1>500</h1>'],
  'private-empty': [200, ''],
  'private-page': [200, '<!doctype html><title>Log in</title>'],
  'private-text': [200, 'ok'],
  'private-list': [200, []],
  'private-null': [200, 'null'],
  'private-without-auth': [200, { data: {} }],
  'presence-object': [200, { auth: 'x:y', channel_data: { user_id: '1' } }],
  'private-login': [302, '', { Location: '/login' }],
};

/** Text that the error must contain, beside the status. */
const REASONS = {
  'private-forbidden': 'answered 403: not yours',
  'private-expired': 'answered 419',
  'private-broken': 'answered 500',
  'private-empty': 'answered 200 with an empty body',
  'private-page': 'answered 200 with an HTML page',
  'private-text': 'answered 200 with "ok"',
  'private-list': 'a JSON object with "auth"',
  'private-null': 'a JSON object with "auth"',
  'private-without-auth': 'without a string "auth"',
  'presence-object': 'without a string "channel_data"',
  'private-login': 'redirected the request, perhaps to a login page',
};

main(async () => {
  const backend = await serve(({ path, headers, form }) => {
    if (path === '/broken') return [200, {}];
    if (path === '/login') return [200, '<title>Log in</title>'];
    const user = headers['x-user'];
    if (path === '/user-auth') return [200, signedUser(form.get('socket_id'), { id: user })];
    const channel = form.get('channel_name');
    return FAILURES[channel] ?? [200, signed(form.get('socket_id'), channel, { user_id: user, user_info: { name: user } })];
  });
  const url = (path) => `http://127.0.0.1:${backend.port}${path}`;
  await channels(backend, url);
  await signingIn(url);
  await failures(backend, url);
  await handlers();
  misuse();
  clients.forEach((client) => client.disconnect());
});

/** Old and new options send the same request; cluster and statistics lead nowhere. */
async function channels(backend, url) {
  const old = {
    authEndpoint: url('/auth'),
    auth: { headers: { 'X-User': '1', 'X-Missing': undefined }, params: { tenant: 'a b&c' } },
    cluster: 'eu',
    enableStats: true,
  };
  let calls = 0;
  const provided = {
    channelAuthorization: {
      endpoint: url('/auth'),
      headers: { 'X-User': 'replaced' },
      headersProvider: async () => ({ 'X-User': '1', 'X-Call': String((calls += 1)) }),
      paramsProvider: () => ({ tenant: 'a b&c' }),
    },
  };
  for (const [index, options] of [old, provided].entries()) {
    const client = connect(options);
    assert.equal(client.config.wsHost, place.wsHost);
    assert.equal(client.config.enableStats, false);
    const news = client.subscribe('news');
    const orders = client.subscribe(`private-orders-${index}`);
    const room = client.subscribe(`presence-room-${index}`);
    await Promise.all([news, orders, room].map((channel) => once(channel, 'pusher:subscription_succeeded')));
    assert.equal(room.members.me.id, '1');
    const heard = once(orders, 'shipped');
    await publish(orders.name, 'shipped', { id: index });
    assert.deepEqual(await heard, { id: index });
  }
  assert.equal(calls, 2);
  const requests = backend.requests.filter(({ form }) => form.get('channel_name')?.startsWith('private-orders'));
  assert.equal(requests.length, 2);
  for (const { method, text, headers } of requests) {
    assert.equal(method, 'POST');
    assert.equal(headers['content-type'], 'application/x-www-form-urlencoded');
    assert.match(text, /^socket_id=\d+\.\d+&channel_name=private-orders-\d&tenant=a%20b%26c$/);
    assert.equal('x-missing' in headers, false);
  }
}

/** The endpoint for users is derived from that for channels only where the convention is known. */
async function signingIn(url) {
  const client = connect({
    authEndpoint: url('/auth'),
    auth: { headers: { 'X-User': '7' } },
    userAuthentication: { endpoint: url('/user-auth') },
  });
  client.signin();
  await client.user.signinDonePromise;
  await once(client.connection, 'message');
  assert.equal(client.user.user_data.id, '7');

  const failing = connect({ userAuthentication: { endpoint: url('/broken') } });
  failing.signin();
  const error = await once(failing.user, 'pusher:signin_error');
  assert.equal(error.type, 'AuthError');
  assert.equal(error.status, 200);
  assert.match(error.error, /answered 200 for the user without a string "auth"/);
}

/** Each failure is reported once, and nothing is asked again. */
async function failures(backend, url) {
  const client = connect({ authEndpoint: url('/auth'), auth: { headers: { 'X-User': '1' } } });
  await once(client.connection, 'connected');
  for (const [name, [status]] of Object.entries(FAILURES)) {
    const error = await once(client.subscribe(name), 'pusher:subscription_error');
    assert.equal(error.type, 'AuthError', name);
    assert.equal(error.status, status, name);
    assert.ok(error.error.includes(REASONS[name]), `${name}: ${error.error}`);
    assert.equal(client.channel(name).subscriptionPending, false, name);
  }
  // The client still works.
  await once(client.subscribe('private-fine'), 'pusher:subscription_succeeded');
  for (const name of Object.keys(FAILURES)) {
    assert.equal(backend.requests.filter(({ form }) => form.get('channel_name') === name).length, 1, name);
  }
  assert.ok(backend.requests.every(({ path }) => path !== '/login'), 'a redirect was followed');

  const nowhere = connect({ authEndpoint: 'http://127.0.0.1:1/auth' });
  const error = await once(nowhere.subscribe('private-a'), 'pusher:subscription_error');
  assert.equal(error.status, 0);
  assert.match(error.error, /^No answer from http:\/\/127\.0\.0\.1:1\/auth: .*CORS, with credentials$/);

  const relative = connect({});
  const noPage = await once(relative.subscribe('private-a'), 'pusher:subscription_error');
  assert.match(noPage.error, /"\/broadcasting\/auth" is relative, and there is no page/);

  // A path below Relay's routes is at Relay, which refuses a caller without credentials.
  const own = connect({ authEndpoint: `/api/v1/apps/${appId}/nothing` });
  const refused = await once(own.subscribe('private-a'), 'pusher:subscription_error');
  assert.equal(refused.status, 404, refused.error);
}

/** Handlers of the application take the place of Relay's, in both styles. */
async function handlers() {
  const authorize = ({ socketId, channelName }, callback) => callback(null, signed(socketId, channelName));
  const styles = [
    { channelAuthorization: { customHandler: authorize } },
    {
      authorizer: ({ name }) => ({
        authorize: (socketId, callback) => authorize({ socketId, channelName: name }, callback),
      }),
    },
  ];
  for (const options of styles) {
    await once(connect(options).subscribe('private-custom'), 'pusher:subscription_succeeded');
  }
}

function misuse() {
  assert.throws(() => new Relay(key), /set wsHost to the host of your Relay server/);
  assert.throws(() => new Relay(), /set wsHost|app key/);
}
