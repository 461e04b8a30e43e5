// The client in Chromium behind proxies that block WebSockets, on a page of another origin under a strict
// Content-Security-Policy: streams, polls, moves between transports with and without `/relay-resume.js`, shared tabs.
// R-CLIENT-13, R-CLIENT-14, R-CLIENT-15, R-CLIENT-16, R-CLIENT-17.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { SITE, withBrowser } from './browser.mjs';
import { next, publishing } from './numbers.mjs';
import { kinds, proxy } from './proxy.mjs';
import { eventually, key, main, serve, signed, within } from './rig.mjs';

const require = createRequire(import.meta.url);
const read = (path) => readFileSync(require.resolve(path));
const FILES = {
  '/pusher.js': read('pusher-js/dist/web/pusher.min.js'),
  '/relay.js': read('@relay/client/relay.js'),
  '/relay-resume.js': read('@relay/client/relay-resume.js'),
  '/page.js': `key = ${JSON.stringify(key)};\n(${pageScript})();`,
};

/** Runs in each page. */
function pageScript() {
  globalThis.violations = [];
  document.addEventListener('securitypolicyviolation', (event) => violations.push(event.blockedURI));
  Object.assign(globalThis, { seen: {}, states: [], gaps: [], errors: [] });
  globalThis.start = (options) => {
    globalThis.relay = new Relay(key, { authEndpoint: '/auth', enabledTransports: ['ws'], ...options });
    relay.connection.bind('state_change', ({ current }) => states.push(current));
    relay.connection.bind('error', (error) => errors.push(error.data?.code ?? error.type));
  };
  globalThis.join = (name) => new Promise((resolve) => {
    seen[name] ??= [];
    const channel = relay.subscribe(name);
    channel.bind('n', ({ number }) => seen[name].push(number));
    channel.bind('pusher:history_gap', (gap) => gaps.push([name, gap.reason]));
    channel.bind('pusher:subscription_succeeded', () => resolve('succeeded'));
    channel.bind('pusher:subscription_error', (error) => resolve(error));
  });
}

const QUICK = { timeout: 1000, retryInterval: 600_000 };

async function site() {
  const { port } = await serve(({ path, query, form }) => {
    if (path === '/') {
      const parameters = new URLSearchParams(query);
      const hosts = parameters.getAll('host').flatMap((host) => [`ws://${host}`, `http://${host}`]);
      const policy = `default-src 'none'; script-src 'self'; connect-src 'self' ${hosts.join(' ')}`;
      const script = (source) => `<script src="${source}" data-hosts="relay.${SITE}"></script>`;
      const scripts = parameters.getAll('script').map(script).join('');
      const body = `<!doctype html><meta charset="utf-8">${scripts}`;
      return [200, body, { 'Content-Security-Policy': policy }];
    }
    if (path === '/auth') return [200, signed(form.get('socket_id'), form.get('channel_name'), { user_id: '7' })];
    return path in FILES ? [200, FILES[path], { 'Content-Type': 'text/javascript' }] : 404;
  });
  return `http://app.${SITE}:${port}`;
}

/** A page whose client connects through a proxy. */
async function open(context, origin, through, { fallback = QUICK, scripts = ['/pusher.js', '/relay.js'], ...options } = {}) {
  const page = await context.newPage();
  const failures = [];
  page.on('pageerror', (error) => failures.push(String(error)));
  const wsPort = through.place.wsPort;
  const query = new URLSearchParams([['host', `relay.${SITE}:${wsPort}`], ...[...scripts, '/page.js'].map((source) => ['script', source])]);
  await page.goto(`${origin}/?${query}`);
  const run = (action, argument) => within(String(action), page.evaluate(action, argument));
  await run((given) => start(given), { wsHost: `relay.${SITE}`, wsPort, forceTLS: false, fallback, ...options });
  return {
    page,
    run,
    failures,
    join: async (name) => assert.equal(await run((channel) => join(channel), name), 'succeeded', name),
    transport: () => run(() => relay.transport ?? null),
    arrived: (name, wanted) => eventually(`${name}: event ${wanted}`, () =>
      run(([channel, event]) => seen[channel].includes(event), [name, wanted])),
    close: async () => {
      assert.deepEqual(await run(() => violations), []);
      assert.deepEqual(failures, []);
      await page.close();
    },
  };
}

const scenarios = {
  /** A page whose WebSocket works sends nothing else. */
  async working(browser, origin) {
    const context = await browser.newContext();
    const through = await proxy();
    const page = await open(context, origin, through);
    await page.join('news');
    await page.arrived('news', await next('news'));
    await new Promise((resolve) => setTimeout(resolve, 3 * QUICK.timeout));
    assert.deepEqual(kinds(through), ['ws']);
    assert.equal(await page.transport(), 'websocket');
    await page.close();
    await context.close();
  },

  /** Each way to block WebSockets leads to a stream, and a proxy that holds streams to polls. */
  async blocked(browser, origin) {
    const context = await browser.newContext();
    for (const upgrades of [403, 'swallow', 'silence', 'close']) {
      for (const buffers of [false, true]) {
        const through = await proxy({ upgrades, buffers });
        const page = await open(context, origin, through);
        await page.join('news');
        await page.join('private-orders');
        assert.equal(await page.transport(), buffers ? 'poll' : 'sse', `${upgrades}`);
        const last = await next('news', 'private-orders');
        await page.arrived('news', last);
        await page.arrived('private-orders', last);
        assert.deepEqual(await page.run(() => seen), { news: [last], 'private-orders': [last] });
        const error = await page.run(() => join('presence-room'));
        assert.deepEqual([error.type, error.status], ['FallbackError', 501]);
        assert.match(error.error, /^presence-room needs a WebSocket/);
        assert.ok(through.heads.every((head) => !head.startsWith('OPTIONS')), 'no preflight');
        await page.close();
        console.log(`${upgrades}, ${buffers ? 'streams held' : 'streams'}`);
      }
    }
    await context.close();
  },

  /** Resets and moves, with the client alone and beside `/relay-resume.js`: by their numbers all events arrive once. */
  async moves(browser, origin) {
    const names = ['news', 'private-a'];
    for (const [buffers, scripts] of [
      [false, ['/pusher.js', '/relay.js']],
      [true, ['/pusher.js', '/relay.js']],
      [false, ['/relay-resume.js', '/pusher.js', '/relay.js']],
      [false, ['/pusher.js', '/relay.js', '/relay-resume.js']],
    ]) {
      const context = await browser.newContext();
      const resumes = scripts.length > 2;
      // With `/relay-resume.js` the first WebSocket has ids already, so nothing is lost when it is blocked later.
      const through = await proxy({ upgrades: resumes ? 'pass' : 403, buffers });
      const page = await open(context, origin, through, { scripts, fallback: { timeout: 1000, retryInterval: 1000 } });
      const subscribed = () => page.run(() => relay.channel('private-a').subscribed && relay.channel('news').subscribed);
      for (const name of names) await page.join(name);
      const numbers = await publishing(names, 10);
      const over = buffers ? 'poll' : 'sse';
      for (let round = 1; round <= 3; round += 1) {
        through.upgrades = 403;
        if (resumes || round > 1) through.cut();
        await eventually('HTTP', async () => (await page.transport()) === over && (await subscribed()));
        for (let resets = 0; resets < 3; resets += 1) {
          const before = kinds(through).filter((kind) => kind === over).length;
          through.cut();
          await eventually('another request', () => kinds(through).filter((kind) => kind === over).length > before);
          await page.arrived('news', numbers.last);
        }
        through.upgrades = 'pass';
        await eventually('a WebSocket', async () => (await page.transport()) === 'websocket' && (await subscribed()));
        await page.arrived('private-a', numbers.last);
      }
      await numbers.stop();
      let count;
      for (const name of names) {
        await page.arrived(name, numbers.last);
        count = numbers.check(await page.run((channel) => seen[channel], name), `${name} by ${over}, ${scripts}`);
      }
      assert.deepEqual(await page.run(() => gaps), []);
      console.log(`${over}: ${count} events on each of 2 channels: 0 lost, 0 doubled`);
      await page.close();
      await context.close();
    }
  },

  /** Tabs share a connection over HTTP, and the next leader opens its own. */
  async sharing(browser, origin) {
    const context = await browser.newContext();
    const through = await proxy({ upgrades: 403 });
    const options = { shareTabs: { user: '7' } };
    const one = await open(context, origin, through, options);
    await one.join('private-orders');
    const two = await open(context, origin, through, options);
    await two.join('private-orders');
    await two.join('news');
    assert.deepEqual(await Promise.all([one, two].map(({ run }) => run(() => relay.sharing))), ['leader', 'follower']);
    assert.deepEqual([await one.transport(), await two.transport()], ['sse', null]);
    const ids = await Promise.all([one, two].map(({ run }) => run(() => relay.connection.socket_id)));
    assert.equal(ids[0], ids[1]);
    const first = await next('private-orders', 'news');
    await one.arrived('private-orders', first);
    await two.arrived('private-orders', first);
    await two.arrived('news', first);
    const error = await two.run(() => join('presence-room'));
    assert.deepEqual([error.type, error.status], ['FallbackError', 501]);
    assert.equal(await two.run(() => relay.channel('news').trigger('client-x', {})), false);
    await one.close();
    await eventually('the other tab leads', async () => (await two.run(() => relay.sharing)) === 'leader');
    await eventually('it has its channels', () => two.run(() =>
      relay.transport === 'sse' && relay.channel('news').subscribed && relay.channel('private-orders').subscribed));
    await two.arrived('news', await next('news'));
    through.upgrades = 'pass';
    await two.close();
    await context.close();
  },
};

main(() => withBrowser(async (browser) => {
  const origin = await site();
  for (const name of process.argv[2] ? process.argv[2].split(',') : Object.keys(scenarios)) {
    await scenarios[name](browser, origin);
    console.log(name);
  }
  console.log('done');
}));
