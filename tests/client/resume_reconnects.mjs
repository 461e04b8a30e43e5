// Stock pusher-js with `/relay-resume.js` in Chromium, whose connections are reset again and again while events are
// published: by the counter in each event, none is lost and none comes twice. R-CLIENT-9, R-CLIENT-10.
//
// Arguments: how many connections to reset in all, how many Pusher objects share them, and a seed.

import assert from 'node:assert/strict';
import { withBrowser } from './browser.mjs';
import { proxy } from './proxy.mjs';
import { eventually, main } from './rig.mjs';
import { next, placeOf, site } from './resume_site.mjs';

const [wanted, objects, seed] = process.argv.slice(2).map(Number);

const CHANNELS = ['news', 'private-orders', 'presence-room'];
/** A connection lives until the server has sent it this much after the handshake, so it may end at any byte. */
const [HANDSHAKE_BYTES, LIFE_BYTES] = [400, 12_000];
const PUBLISH_INTERVAL_MS = 100;
const REPORT_INTERVAL_MS = 10_000;

/** Numbers from 0 to 1 by the linear congruential generator of POSIX. */
function generator(start) {
  let state = BigInt(start);
  return () => {
    state = (state * 25214903917n + 11n) & (2n ** 48n - 1n);
    return Number(state >> 16n) / 2 ** 32;
  };
}

main(() => withBrowser(async (browser) => {
  const random = generator(seed);
  let isOver = false;
  const limit = () => (isOver ? Infinity : HANDSHAKE_BYTES + Math.floor(random() * LIFE_BYTES));
  // The first one serves the script as well.
  const proxies = [await proxy()];
  while (proxies.length <= objects) proxies.push(await proxy({ limit }));
  const { open, resume } = await site(browser, proxies);
  const page = await open('/pusher-8.6.js', resume);
  await page.run(([places, channels]) => {
    for (const [index, place] of places.entries()) start(index, place, channels);
  }, [proxies.slice(1).map(placeOf), CHANNELS]);
  await eventually('all channels are subscribed', () => page.run(() =>
    Object.values(pushers).every((pusher) => pusher.allChannels().every((channel) => channel.subscribed))));

  const first = await next(...CHANNELS);
  let last = first;
  const resets = () => proxies.reduce((sum, each) => sum + each.resets, 0);
  let reportedAt = Date.now();
  while (resets() < wanted) {
    last = await next(...CHANNELS);
    await new Promise((resolve) => setTimeout(resolve, PUBLISH_INTERVAL_MS));
    if (Date.now() - reportedAt < REPORT_INTERVAL_MS) continue;
    reportedAt = Date.now();
    console.log(`${resets()} connections were reset, ${last - first + 1} events published on each channel`);
  }
  isOver = true;
  proxies.forEach((each) => each.cut());
  last = await next(...CHANNELS);

  const all = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  for (let index = 0; index < objects; index += 1) {
    for (const name of CHANNELS) {
      const label = `${index} ${name}`;
      await page.arrived(label, last);
      const numbers = await page.numbers(label);
      const doubled = numbers.filter((number, at) => numbers.indexOf(number) !== at);
      const lost = all.filter((number) => !numbers.includes(number));
      assert.deepEqual({ lost, doubled }, { lost: [], doubled: [] }, label);
      assert.deepEqual(numbers.filter((number) => number >= first), all, `${label} is in order`);
    }
  }
  const gaps = await page.run(() => reports.filter(([event]) => event === 'gap'));
  assert.deepEqual(gaps, []);
  assert.deepEqual(page.errors, []);
  const resumed = await page.run(() => reports.length);
  assert.ok(resumed >= objects * CHANNELS.length, 'channels were resumed');
  console.log(`done: ${resets()} connections reset, ${resumed} channels resumed, ${all.length} events on each of ` +
    `${CHANNELS.length} channels for ${objects} clients: 0 lost, 0 doubled`);
}));
