// EventSource of Chromium, on a page of another origin: connections are reset while events are published, and nothing is
// lost or doubled; no event of a publisher fires the handlers of EventSource itself. R-SSE-6 to R-SSE-9, threat T60.

import assert from 'node:assert/strict';
import { connect, createServer } from 'node:net';
import { site, withBrowser } from './browser.mjs';
import { appId, key, main, publish, relayPort, within } from './rig.mjs';

const RESETS = 4;

/** A way to the server on which connections can be reset. */
function resettable() {
  const open = new Set();
  const server = createServer((client) => {
    const upstream = connect(relayPort, '127.0.0.1');
    open.add(client);
    client.on('close', () => open.delete(client) && upstream.destroy());
    upstream.on('close', () => client.destroy());
    for (const socket of [client, upstream]) socket.on('error', () => {});
    client.pipe(upstream).pipe(client);
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      server.unref();
      resolve({ port: server.address().port, reset: () => open.forEach((socket) => socket.resetAndDestroy()) });
    });
  });
}

const PAGE = `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script>
const seen = [], named = [], errors = [];
let connects = 0;
function start(url) {
  const source = new EventSource(url);
  source.onerror = (event) => errors.push(event instanceof MessageEvent ? 'message' : 'connection');
  source.onopen = (event) => event instanceof MessageEvent && errors.push('message');
  source.addEventListener('connected', () => connects += 1);
  source.addEventListener('gap', (event) => errors.push(event.data));
  source.addEventListener('count', (event) => seen.push(JSON.parse(event.data)));
  source.onmessage = (event) => named.push(JSON.parse(event.data).event);
}
const until = (condition) => new Promise((resolve) => {
  const look = () => condition() ? resolve(true) : requestAnimationFrame(look);
  look();
});
</script>`;

main(() => withBrowser(async (browser) => {
  const way = await resettable();
  const { origin } = await site({ '/': PAGE });
  for (const channels of ['a', 'a,b,c']) {
    const page = await (await browser.newContext()).newPage();
    await page.goto(`${origin}/`);
    const run = (action, argument) => within(String(action), page.evaluate(action, argument));
    const url = `http://127.0.0.1:${way.port}/api/v1/apps/${appId}/sse?channels=${channels}&key=${key}`;
    await run((address) => start(address), url);
    await run(() => until(() => connects === 1));
    const names = channels.split(',');
    const sent = [];
    const count = async () => {
      const channel = names[sent.length % names.length];
      sent.push([channel, String(sent.length)]);
      await publish(channel, 'count', sent.length - 1);
    };
    for (let resets = 1; resets <= RESETS; resets += 1) {
      for (let number = 0; number < 10; number += 1) await count();
      way.reset();
      for (let number = 0; number < 20; number += 1) await count();
      await run((expected) => until(() => connects > expected), resets);
    }
    await run((expected) => until(() => seen.length >= expected), sent.length);
    const seen = await run(() => seen.map(({ channel, data }) => [channel, data]));
    for (const name of names) {
      const of = (list) => list.filter(([channel]) => channel === name).map(([, data]) => data);
      assert.deepEqual(of(seen), of(sent), `each once, in order, on ${name}`);
    }
    assert.equal(seen.length, sent.length);

    const before = await run(() => errors.length);
    const reserved = ['error', 'open', 'connected', 'gap'];
    for (const name of reserved) await publish('a', name, { forged: true });
    await run((expected) => until(() => named.length === expected), reserved.length);
    assert.deepEqual(await run(() => named), reserved);
    const errors = await run(() => errors);
    assert.equal(errors.length, before, 'no handler of EventSource itself');
    assert.ok(errors.every((error) => error === 'connection'), errors.join());
    await page.context().close();
  }
}));
