// A customer's site whose pages load stock pusher-js and `/relay-resume.js` under a strict Content-Security-Policy, and
// connect through a proxy that can reset them.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import PusherServer from 'pusher';
import { SITE } from './browser.mjs';
import { eventually, key, relayHost, relayPort, serve, within } from './rig.mjs';

/** The versions of pusher-js, and where each is installed. */
export const VERSIONS = { '7.6': 'pusher-js-7.6', '8.0': 'pusher-js-8.0', '8.6': 'pusher-js' };

const read = (path) => readFileSync(new URL(`node_modules/${path}`, import.meta.url));

/** What the site serves beside its pages. */
const FILES = { '/page.js': `key = ${JSON.stringify(key)};\n(${pageScript})();`, '/echo.js': read('laravel-echo/dist/echo.iife.js') };
for (const [version, name] of Object.entries(VERSIONS)) {
  for (const build of ['pusher', 'pusher-with-encryption']) {
    FILES[`/${build}-${version}.js`] = read(`${name}/dist/web/${build}.min.js`);
  }
}

/** Runs in each page: records violations of its policy, reports of resumes, and the numbers of events. */
function pageScript() {
  globalThis.violations = [];
  document.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
  globalThis.reports = [];
  for (const event of ['gap', 'resumed']) {
    globalThis.RelayResume?.on(event, ({ channel }) => reports.push([event, channel]));
  }
  globalThis.recorded = {};
  globalThis.record = (label, channel) => {
    recorded[label] = [];
    channel.bind_global((event, data) => {
      if (event === 'n') recorded[label].push(data.number);
    });
    return new Promise((resolve) => channel.bind('pusher:subscription_succeeded', () => resolve()));
  };
  globalThis.pushers = {};
  globalThis.start = (label, options, channels) => {
    const pusher = new Pusher(key, { ...options, channelAuthorization: { endpoint: '/auth', transport: 'ajax' } });
    pushers[label] = pusher;
    return Promise.all(channels.map((name) => record(`${label} ${name}`, pusher.subscribe(name))));
  };
}

export const server = new PusherServer({
  appId: process.env.RELAY_APP_ID,
  key,
  secret: process.env.RELAY_SECRET,
  host: relayHost,
  port: relayPort,
  useTLS: false,
  encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString('base64'),
});

let number = 0;

/** Publishes an event with the next number; returns it. The SDK encrypts for one channel at a time. */
export async function next(...names) {
  number += 1;
  for (const name of names) await server.trigger(name, 'n', { number });
  return number;
}

/** Options of pusher-js for a proxy, by the name that pages know it by. */
export const placeOf = ({ place }) => ({ ...place, wsHost: `relay.${SITE}`, enabledTransports: ['ws', 'wss'] });

/** Starts the site, whose pages may load Relay's scripts from, and connect to, these proxies. */
export async function site(browser, proxies) {
  const hosts = proxies.map((each) => `relay.${SITE}:${each.place.wsPort}`);
  const policy = [
    "default-src 'none'",
    `script-src 'self' http://${hosts[0]}`,
    `connect-src 'self' ${hosts.map((host) => `ws://${host}`).join(' ')}`,
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; ');
  const copy = await fetch(`http://${relayHost}:${relayPort}/relay-resume.js`);
  assert.equal(copy.status, 200);
  FILES['/relay-resume.js'] = await copy.text();
  const { port } = await serve(({ path, query, form }) => {
    if (path === '/') {
      const scripts = new URLSearchParams(query).getAll('script').map((source) => `<script src=${source}></script>`);
      return [200, `<!doctype html><meta charset="utf-8">${scripts.join('')}`, { 'Content-Security-Policy': policy }];
    }
    if (path === '/auth') {
      const name = form.get('channel_name');
      const member = name.startsWith('presence-') ? { user_id: '7' } : undefined;
      return [200, server.authorizeChannel(form.get('socket_id'), name, member)];
    }
    return path in FILES ? [200, FILES[path], { 'Content-Type': 'text/javascript' }] : 404;
  });
  return {
    resume: `http://${hosts[0]}/relay-resume.js`,
    client: `http://${hosts[0]}/relay.js`,
    open: (...scripts) => open(browser, `http://app.${SITE}:${port}`, scripts),
  };
}

/** A page with these scripts, in this order: each is an attribute `src`, and maybe further attributes. */
async function open(browser, origin, scripts) {
  const page = await (await browser.newContext()).newPage();
  const errors = [];
  const logged = [];
  page.on('console', (message) => logged.push(message.text()));
  page.on('pageerror', (error) => errors.push(String(error)));
  const query = new URLSearchParams([...scripts, '/page.js'].map((source) => ['script', source]));
  await page.goto(`${origin}/?${query}`);
  const run = (action, argument) => within(String(action), page.evaluate(action, argument));
  return {
    run,
    errors,
    logged,
    /** Creates a Pusher object that subscribes to these channels. */
    start: (label, place, channels) => run((given) => start(...given), [label, place, channels]),
    /** Makes `back` the promise that all Pusher objects subscribe again. */
    expectBack: (name) => run((channel) => {
      globalThis.back = Promise.all(Pusher.instances.map((pusher) => new Promise((resolve) => {
        pusher.channel(channel).bind('pusher:subscription_succeeded', () => resolve());
      })));
    }, name),
    numbers: (label) => run((name) => recorded[name], label),
    arrived: (label, wanted) => eventually(`${label}: event ${wanted}`, () =>
      run(([name, event]) => recorded[name].includes(event), [label, wanted])),
  };
}
