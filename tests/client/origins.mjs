// Page, Relay and the customer's backend on three origins of one site, in Chromium: what of the user reaches the
// backend, where paths lead, and how the classic script is loaded. R-CLIENT-1, R-CLIENT-3, R-CLIENT-4, threat T56.
//
// Arguments: the examples of docs/clients/javascript.md in JSON, and the integrity value that its command printed.

import assert from 'node:assert/strict';
import { pageWith, relayOrigin, SITE, site, withBrowser } from './browser.mjs';
import { appId, key, main, publish, serve, signed, within } from './rig.mjs';

const [examplesText, integrity] = process.argv.slice(2);

/** An example as a page runs it: as written, but with this app's key and this customer's backend. */
const example = (text, backend) => text
  .replaceAll("new Relay('key'", `new Relay('${key}'`)
  .replaceAll('YOUR_APP_ID', appId)
  .replaceAll('https://backend.example.com', backend);

const COOKIE = `session=of-user-7; Domain=${SITE}; Path=/; HttpOnly; SameSite=Lax`;

/** Whom the request's cookie, and the token that only a page of the site can know, belong to. */
function userOf({ headers }) {
  return headers.cookie?.includes('session=of-user-7') && headers['x-csrf-token'] === 'token-of-the-page' ? '7' : null;
}

function authorize(request) {
  const user = userOf(request);
  if (!user) return 401;
  const channel = request.form.get('channel_name');
  if (channel !== `private-user.${user}`) return 403;
  return [200, signed(request.form.get('socket_id'), channel)];
}

/** The backend on an origin of its own: it allows the customer's page by CORS, with credentials. */
async function backendFor(origin) {
  const { port, requests } = await serve((request) => {
    const cors = { 'Access-Control-Allow-Origin': origin(), 'Access-Control-Allow-Credentials': 'true' };
    if (request.method === 'OPTIONS') return [204, '', { ...cors, 'Access-Control-Allow-Headers': 'x-csrf-token' }];
    if (request.path !== '/broadcasting/auth') return [404, '', cors];
    const [status, body = ''] = [authorize(request)].flat(1);
    return [status, body, cors];
  });
  return { origin: `http://backend.${SITE}:${port}`, requests };
}

main(() => withBrowser(async (browser) => {
  const examples = JSON.parse(examplesText);
  let origin;
  const backend = await backendFor(() => origin);
  const pages = {
    '/login': 'Logged in',
    '/default': pageWith(example(examples.default, backend.origin)),
    '/backend': pageWith(example(examples.backend, backend.origin)),
    '/intact': pageWith('', ` integrity="${integrity}" crossorigin="anonymous"`),
    '/changed': pageWith('', ' integrity="sha384-AAAA" crossorigin="anonymous"'),
    '/without': `<script src="${relayOrigin}/relay.js"></script>`,
  };
  const customer = await site(pages, (request) => {
    if (request.path === '/logged-in') return [200, 'Logged in', { 'Set-Cookie': COOKIE }];
    return request.path === '/broadcasting/auth' ? authorize(request) : 404;
  });
  origin = customer.origin;
  const world = { browser, customer, backend };
  await ownOrigin(world);
  await otherOrigin(world);
  await otherSite(world);
  await scripts(world);
}));

async function page({ browser, customer }, path, isLoggedIn = true) {
  const context = await browser.newContext();
  const opened = await context.newPage();
  if (isLoggedIn) await opened.goto(`${customer.origin}/logged-in`);
  await opened.goto(`${customer.origin}${path}`);
  const run = (action, argument) => within(String(action), opened.evaluate(action, argument));
  const outcome = (channel) => run((name) => new Promise((resolve) => {
    const subscribed = relay.subscribe(name);
    subscribed.bind('pusher:subscription_succeeded', () => resolve('succeeded'));
    subscribed.bind('pusher:subscription_error', (error) => resolve(error.status));
  }), channel);
  return { opened, run, outcome };
}

/** The default endpoint is the page's own; host, port and TLS of Relay are those of the script. */
async function ownOrigin(world) {
  const { outcome, run } = await page(world, '/default');
  assert.equal(await outcome('private-user.7'), 'succeeded');
  assert.equal(await outcome('private-user.8'), 403);
  const { host, transports } = await run(() => ({
    host: `http://${relay.config.wsHost}:${relay.config.wsPort}`,
    transports: relay.config.enabledTransports,
  }));
  assert.deepEqual([host, transports], [relayOrigin, ['ws', 'wss']]);
  const asked = world.customer.requests.filter(({ path }) => path === '/broadcasting/auth');
  const channels = asked.map(({ form }) => form.get('channel_name'));
  // The first is of the example itself.
  assert.deepEqual(channels, ['private-orders', 'private-user.7', 'private-user.8']);
  const stranger = await page(world, '/default', false);
  assert.equal(await stranger.outcome('private-user.7'), 401);
}

/** The backend on another origin of the site gets the cookie and the header. */
async function otherOrigin(world) {
  const { outcome, run } = await page(world, '/backend');
  assert.equal(await outcome('private-user.7'), 'succeeded');
  assert.equal(await outcome('private-user.8'), 403);
  const posts = world.backend.requests.filter(({ method }) => method === 'POST');
  assert.deepEqual(posts.map(userOf), ['7', '7']);
  assert.equal(posts[0].headers.origin, world.customer.origin);
  await run(() => {
    globalThis.heard = new Promise((resolve) => relay.channel('private-user.7').bind('shipped', resolve));
  });
  await publish('private-user.7', 'shipped', { id: 42 });
  assert.deepEqual(await run(() => heard), { id: 42 });
  // Without cookies the backend knows nobody.
  const without = { authEndpoint: `${world.backend.origin}/broadcasting/auth`, authCredentials: 'omit' };
  const status = await run((given) => new Promise((resolve) => {
    const channel = new Relay(...given).subscribe('private-user.7');
    channel.bind('pusher:subscription_error', (error) => resolve(error.status));
  }), [key, { ...without, auth: { headers: { 'X-CSRF-Token': 'token-of-the-page' } } }]);
  assert.equal(status, 401);
}

/** The documented limit: a page of another site sends no cookie of this one. */
async function otherSite({ browser, customer, backend }) {
  const context = await browser.newContext();
  const opened = await context.newPage();
  await opened.goto(`${customer.origin}/logged-in`);
  const url = new URL(customer.origin);
  await opened.goto(`http://app.elsewhere.localhost:${url.port}/login`);
  const before = backend.requests.length;
  await opened.evaluate((target) => fetch(target, {
    method: 'POST',
    credentials: 'include',
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
  }).catch(() => {}), `${backend.origin}/broadcasting/auth`);
  const [request] = backend.requests.slice(before);
  assert.equal(request.headers.cookie, undefined);
}

/** A page checks the script's digest by the documented value, and without pusher-js gets an error that says so. */
async function scripts(world) {
  const intact = await page(world, '/intact');
  assert.equal(await intact.run(() => typeof Relay), 'function');
  const changed = await page(world, '/changed');
  assert.equal(await changed.run(() => typeof Relay), 'undefined');
  const { opened } = await page(world, '/login');
  const error = opened.waitForEvent('pageerror');
  await opened.goto(`${world.customer.origin}/without`);
  assert.match((await within('an error', error)).message, /load pusher-js before this script/);
}
