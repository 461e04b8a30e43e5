// The document's example with Relay's own auth endpoint, in Chromium: page, Relay and backend on three origins of one
// site. R-CLIENT-1, R-CLIENT-4, R-CLIENT-5, R-AUTHEP-3, R-AUTHEP-5, threat T40.
//
// Argument: the example. Prints the port of the backend, which the app's settings have to name then.

import assert from 'node:assert/strict';
import { pageWith, relayOrigin, SITE, site, withBrowser } from './browser.mjs';
import { api, appId, eventually, key, main, publish, relayPort, serve, within } from './rig.mjs';

const [example] = process.argv.slice(2);
const asWritten = example.replace("new Relay('key'", `new Relay('${key}'`).replace('YOUR_APP_ID', appId);
const byKey = `const relay = new Relay('${key}', {
  authEndpoint: '${relayOrigin}/broadcasting/auth?key=${key}',
  auth: { headersProvider: () => ({ 'X-CSRF-Token': 'token-of-the-page' }) },
});`;

const COOKIE = `session=of-user-7; Domain=${SITE}; Path=/; HttpOnly; SameSite=Lax`;

/** The backend knows its user by the cookie and the token, and signs nothing. */
function decide({ path, headers, form }) {
  if (!headers.cookie?.includes('session=of-user-7') || headers['x-csrf-token'] !== 'token-of-the-page') return 401;
  if (path === '/relay/user') return [200, { user_data: { id: '7' } }];
  const channel = form.get('channel_name');
  if (path !== '/relay/auth' || !/[./]7$/.test(channel)) return 403;
  return [200, channel.startsWith('presence-') ? { channel_data: { user_id: '7', user_info: { name: 'Zoë' } } } : {}];
}

main(() => withBrowser(async (browser) => {
  const backend = await serve(decide);
  const customer = await site({ '/': pageWith(asWritten), '/by-key': pageWith(byKey) }, ({ path }) =>
    (path === '/logged-in' ? [200, 'Logged in', { 'Set-Cookie': COOKIE }] : 404));
  console.log(`port ${backend.port}`);
  await eventually('the last setting', () => hasAuthorizer(customer.origin));
  const context = await browser.newContext();
  const world = { context, customer, backend };
  await asInTheDocument(world);
  await manyChannels(world);
  await foreignPage(world);
}));

/** Whether users are asked about yet: until then nobody without a credential gets further than 401. */
async function hasAuthorizer(origin) {
  const { status } = await fetch(`http://127.0.0.1:${relayPort}/api/v1/apps/${appId}/user-auth`, {
    method: 'POST',
    headers: { Origin: origin, 'Content-Type': 'application/x-www-form-urlencoded' },
    body: 'socket_id=1.1',
  });
  return status !== 401;
}

async function open({ context, customer }, path) {
  const page = await context.newPage();
  const answers = [];
  page.on('response', (response) => response.request().method() === 'POST' && answers.push(response));
  page.on('pageerror', (error) => console.error('in a page:', error));
  await page.goto(`${customer.origin}/logged-in`);
  await page.goto(customer.origin + path);
  const run = (action, argument) => within(String(action), page.evaluate(action, argument));
  /** What becomes of channels that are subscribed to at once. */
  const outcomes = (names) => run((channels) => Promise.all(channels.map((name) => new Promise((resolve) => {
    const channel = relay.subscribe(name);
    channel.bind('pusher:subscription_succeeded', () => resolve('succeeded'));
    channel.bind('pusher:subscription_error', (error) => resolve(error.status));
  }))), names);
  return { page, run, outcomes, answers };
}

/** Relay asks the backend with the page's cookie and token, and signs what that allows. */
async function asInTheDocument(world) {
  const { outcomes, run, answers } = await open(world, '/');
  assert.deepEqual(await outcomes(['private-order.7', 'presence-room.7', 'private-order.8']), ['succeeded', 'succeeded', 403]);
  const me = await run(() => relay.channel('presence-room.7').members.me);
  assert.deepEqual(me, { id: '7', info: { name: 'Zoë' } });
  const asked = world.backend.requests.filter(({ path }) => path === '/relay/auth');
  const channels = asked.map(({ form }) => form.get('channel_name')).sort();
  assert.deepEqual(channels, ['presence-room.7', 'private-order.7', 'private-order.8']);
  assert.ok(asked.every(({ headers }) => headers.origin === world.customer.origin));
  assert.deepEqual(answers.map((answer) => answer.url()), [`${relayOrigin}/api/v1/apps/${appId}/auth`], 'one request');

  await run(() => {
    globalThis.heard = new Promise((resolve) => relay.channel('private-order.7').bind('shipped', resolve));
  });
  await publish('private-order.7', 'shipped', { id: 42 });
  assert.deepEqual(await run(() => heard), { id: 42 });
  // A single channel has the plain form, and its refusal the backend's status.
  assert.deepEqual(await outcomes(['private-order.9']), [403]);
  await run(() => {
    relay.signin();
    return relay.user.signinDonePromise;
  });
  assert.equal(await run(() => relay.user.user_data.id), '7');
}

/** More channels than a socket may ask for at once: the client waits as Relay says, and all are joined. */
async function manyChannels(world) {
  const { outcomes, answers } = await open(world, '/by-key');
  const names = Array.from({ length: 220 }, (_, index) => `private-${index}.7`);
  assert.deepEqual(await outcomes(names), names.map(() => 'succeeded'));
  const statuses = answers.map((answer) => answer.status()).sort();
  assert.deepEqual(statuses.filter((status) => status === 200), [200, 200, 200]);
  assert.ok(statuses.includes(429) && statuses.every((status) => status === 200 || status === 429), String(statuses));
  const refused = answers.find((answer) => answer.status() === 429);
  assert.match((await refused.allHeaders())['access-control-expose-headers'], /Retry-After/);
}

/** A page of the same site that is not listed: its requests have the cookie, but reach no backend and read nothing. */
async function foreignPage({ context, customer, backend }) {
  const page = await context.newPage();
  await page.goto(`http://evil.${SITE}:${new URL(customer.origin).port}/logged-in`);
  const before = backend.requests.length;
  const { connections } = await api('GET', '/connections');
  assert.ok(connections >= 1);
  const outcome = await page.evaluate(async ([url, body]) => {
    const attempt = (options) => fetch(url, { method: 'POST', credentials: 'include', body, ...options })
      .then((response) => response.type, () => 'failed');
    const form = { 'Content-Type': 'application/x-www-form-urlencoded' };
    return [
      await attempt({ headers: form }),
      await attempt({ headers: { ...form, 'X-CSRF-Token': 'token-of-the-page' } }),
      await attempt({ headers: form, mode: 'no-cors' }),
    ];
  }, [`${relayOrigin}/api/v1/apps/${appId}/auth`, 'socket_id=1.1&channel_name=private-order.7']);
  assert.deepEqual(outcome, ['failed', 'failed', 'opaque']);
  assert.equal(backend.requests.length, before);
}
