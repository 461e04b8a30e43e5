// Pages that load stock pusher-js and `/relay-resume.js`, in Chromium, under a strict Content-Security-Policy.
// R-CLIENT-9 to R-CLIENT-12.
//
// Argument: the examples of docs/history.md in JSON.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { withBrowser } from './browser.mjs';
import { proxy } from './proxy.mjs';
import { eventually, key, main, once } from './rig.mjs';
import { next, placeOf, site, VERSIONS } from './resume_site.mjs';

main(() => withBrowser(async (browser) => {
  const through = await proxy();
  const world = { ...await site(browser, [through]), through, place: placeOf(through) };
  for (const scenario of [orders, encrypted, objects, echo, copies, withClient, sharing, documented]) {
    await scenario(world);
    for (const context of browser.contexts()) await context.close();
    console.log(scenario.name);
  }
}));

/** Loses the connections of the pages; returns what was published meanwhile. */
async function lose(through, names) {
  through.cut();
  return [await next(...names), await next(...names)];
}

/** Before and after each version of pusher-js; a page with another build than the first one keeps working. */
async function orders({ open, through, resume, place }) {
  const names = ['news', 'presence-room'];
  const pages = [];
  for (const version of Object.keys(VERSIONS)) {
    const pusher = `/pusher-${version}.js`;
    pages.push(await open(resume, pusher), await open(pusher, resume), await open('/pusher-8.6.js', resume, pusher));
  }
  for (const page of pages) await page.start('a', place, names);
  const wanted = [await next(...names)];
  for (const page of pages) for (const name of names) await page.arrived(`a ${name}`, wanted[0]);
  wanted.push(...await lose(through, names));
  for (const page of pages) {
    for (const name of names) {
      await page.arrived(`a ${name}`, wanted.at(-1));
      assert.deepEqual(await page.numbers(`a ${name}`), wanted);
    }
    assert.deepEqual(await page.run(() => reports.sort()), names.map((name) => ['resumed', name]));
    assert.deepEqual([page.errors, await page.run(() => violations)], [[], []]);
  }
}

/** Encrypted channels, with the builds that have encryption. */
async function encrypted({ open, through, resume, place }) {
  const name = 'private-encrypted-orders';
  const builds = Object.keys(VERSIONS).map((version) => `/pusher-with-encryption-${version}.js`);
  const pages = await Promise.all(builds.map((build) => open(build, resume)));
  for (const page of pages) await page.start('a', place, [name]);
  const wanted = [await next(name)];
  for (const page of pages) await page.arrived(`a ${name}`, wanted[0]);
  wanted.push(...await lose(through, [name]));
  for (const page of pages) {
    await page.arrived(`a ${name}`, wanted.at(-1));
    assert.deepEqual(await page.numbers(`a ${name}`), wanted);
    assert.deepEqual(await page.run(() => reports), [['resumed', name]]);
  }
}

/** Two Pusher objects of a page: each continues from its own last event. */
async function objects({ open, through, resume, place }) {
  const page = await open('/pusher-8.6.js', resume);
  await page.start('a', place, ['shared']);
  await page.start('b', place, ['shared']);
  const wanted = [await next('shared')];
  for (const label of ['a', 'b']) await page.arrived(`${label} shared`, wanted[0]);
  await page.run(() => pushers.a.disconnect());
  wanted.push(await next('shared'));
  await page.arrived('b shared', wanted[1]);
  wanted.push(...await lose(through, ['shared']));
  await page.arrived('b shared', wanted.at(-1));
  await page.run(() => pushers.a.connect());
  for (const label of ['a', 'b']) {
    await page.arrived(`${label} shared`, wanted.at(-1));
    assert.deepEqual(await page.numbers(`${label} shared`), wanted);
  }
}

/** laravel-echo, which finds the global `Pusher`, hears of the gap and of the resume as of any event of a channel. */
async function echo({ open, through, resume, place }) {
  const page = await open(resume, '/pusher-8.6.js', '/echo.js');
  await page.run(async (options) => {
    globalThis.echo = new Echo.default({ ...options, broadcaster: 'pusher', key, authEndpoint: '/auth' });
    globalThis.heard = [];
    const channel = echo.private('orders');
    channel.listen('.pusher:history_resumed', () => heard.push('resumed'));
    channel.listen('.pusher:history_gap', ({ reason }) => heard.push(reason));
    await record('echo', channel.subscription);
  }, place);
  const name = 'private-orders';
  const wanted = [await next(name)];
  await page.arrived('echo', wanted[0]);
  wanted.push(...await lose(through, [name]));
  await page.arrived('echo', wanted.at(-1));
  assert.deepEqual(await page.numbers('echo'), wanted);
  await page.run(() => echo.disconnect());
  let last;
  for (let missed = 0; missed < 101; missed += 1) last = await next(name);
  await page.run(() => echo.connector.pusher.connect());
  await page.arrived('echo', last);
  assert.equal((await page.numbers('echo')).length, wanted.length + 100);
  assert.deepEqual(await page.run(() => heard), ['resumed', 'expired']);
}

/** A copy of the script resumes where `data-hosts` says; without it, on its own host, which is not Relay's here. */
async function copies({ open, through, place }) {
  const host = `${place.wsHost}:${place.wsPort}`;
  const resuming = [
    await open('/pusher-8.6.js', `/relay-resume.js data-hosts=${place.wsHost}`),
    await open('/pusher-8.6.js', `/relay-resume.js data-hosts=other.example,${host}`),
  ];
  const others = [
    await open('/pusher-8.6.js', '/relay-resume.js'),
    await open('/pusher-8.6.js', `/relay-resume.js data-hosts=${place.wsHost}:1`),
  ];
  for (const page of resuming) await page.start('a', place, ['copied']);
  assert.ok(through.heads.at(-1).includes('event_ids=true'));
  const count = through.heads.length;
  for (const page of others) await page.start('a', place, ['copied']);
  for (const head of through.heads.slice(count)) assert.doesNotMatch(head, /event_ids/);
  const pages = [...resuming, ...others];
  const first = await next('copied');
  for (const page of pages) await page.arrived('a copied', first);
  for (const page of pages) await page.expectBack('copied');
  const missed = await lose(through, ['copied']);
  for (const page of pages) await page.run(() => back);
  const last = await next('copied');
  for (const page of pages) await page.arrived('a copied', last);
  for (const page of resuming) assert.deepEqual(await page.numbers('a copied'), [first, ...missed, last]);
  for (const page of others) assert.deepEqual(await page.numbers('a copied'), [first, last]);
}

/** With Relay's own client, whichever of the two scripts comes first. */
async function withClient({ open, through, resume, client }) {
  const pages = [await open('/pusher-8.6.js', client, resume), await open('/pusher-8.6.js', resume, client)];
  for (const page of pages) {
    await page.run(() => {
      globalThis.relay = new Relay(key, { authEndpoint: '/auth' });
      return record('relay', relay.subscribe('private-orders'));
    });
  }
  const wanted = [await next('private-orders')];
  for (const page of pages) await page.arrived('relay', wanted[0]);
  wanted.push(...await lose(through, ['private-orders']));
  for (const page of pages) {
    await page.arrived('relay', wanted.at(-1));
    assert.deepEqual(await page.numbers('relay'), wanted);
  }
}

/** Tabs that share a connection do not resume, as documented; what is published later reaches each of them once. */
async function sharing({ open, through, resume, client }) {
  const page = await open('/pusher-8.6.js', resume, client);
  const roles = await page.run(async () => {
    const tab = async (label) => {
      const relay = new Relay(key, { authEndpoint: '/auth', shareTabs: { user: '7' } });
      await record(label, relay.subscribe('tabs'));
      return relay.sharing;
    };
    return [await tab('leader'), await tab('follower')];
  });
  assert.deepEqual(roles, ['leader', 'follower']);
  const first = await next('tabs');
  for (const label of ['leader', 'follower']) await page.arrived(label, first);
  await page.expectBack('tabs');
  await lose(through, ['tabs']);
  await page.run(() => back);
  const last = await next('tabs');
  for (const label of ['leader', 'follower']) {
    await page.arrived(label, last);
    const numbers = await page.numbers(label);
    assert.deepEqual([numbers[0], numbers.at(-1), numbers.length <= 4], [first, last, true]);
    assert.equal(new Set(numbers).size, numbers.length);
  }
  assert.deepEqual(await page.run(() => reports), []);
}

/** The examples of the document: its scripts in a page, and its module on Node. */
async function documented({ open, through, resume, place }) {
  const examples = JSON.parse(process.argv[2]);
  const sources = [...examples['resume-page'].matchAll(/<script src="([^"]*)"><\/script>/g)].map(([, source]) => source);
  const served = sources.map((source) => source
    .replace('/pusher.min.js', '/pusher-8.6.js')
    .replace('https://relay.example.com/relay-resume.js', resume));
  assert.deepEqual(served, ['/pusher-8.6.js', resume]);
  const page = await open(...served);
  await page.run(examples['resume-events']);
  await page.start('a', place, ['documented']);

  const host = '127.0.0.1';
  const module = examples['resume-module']
    .replace("'KEY'", `'${key}'`)
    .replaceAll("'relay.example.com'", `'${host}'`)
    .replace('wsPort: 80', `wsPort: ${place.wsPort}`)
    .replace('forceTLS: true', 'forceTLS: false');
  const path = new URL('documented.mjs', import.meta.url);
  writeFileSync(path, `${module}\nexport { history, pusher };\n`);
  const { history, pusher } = await import(path);
  const reported = [];
  history.on('gap', ({ reason }) => reported.push(reason)).on('resumed', () => reported.push('resumed'));
  const channel = pusher.subscribe('documented');
  const numbers = [];
  channel.bind('n', (data) => numbers.push(data.number));
  await once(channel, 'pusher:subscription_succeeded');

  const wanted = [await next('documented')];
  await page.arrived('a documented', wanted[0]);
  await eventually('the first event', () => numbers.length === 1);
  wanted.push(...await lose(through, ['documented']));
  await page.arrived('a documented', wanted.at(-1));
  await eventually('the missed events', () => numbers.includes(wanted.at(-1)));
  assert.deepEqual([numbers, await page.numbers('a documented')], [wanted, wanted]);
  assert.deepEqual(reported, ['resumed']);
  assert.deepEqual(page.logged, ['nothing was lost on documented']);
  pusher.disconnect();
}
