// Chromium, and the pages of a customer's site: everything a page needs comes from the site and from Relay.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { chromium } from 'playwright-core';
import { key, relayPort, serve } from './rig.mjs';

/** Origins of one site: a cookie for its domain is sent to all of them. */
export const SITE = 'site.localhost';
export const relayOrigin = `http://relay.${SITE}:${relayPort}`;

const ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Runs a scenario with a browser, which ends with it. */
export async function withBrowser(scenario) {
  const executablePath = process.env.RELAY_CHROMIUM ?? '/usr/bin/chromium';
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS });
  try {
    await scenario(browser);
  } finally {
    await browser.close();
  }
}

const require = createRequire(import.meta.url);
const pusher = readFileSync(require.resolve('pusher-js/dist/web/pusher.min.js'));

/** A page that loads pusher-js from its own site and the client from Relay. */
export const pageWith = (script, attributes = '') => `<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<meta name="csrf-token" content="token-of-the-page"><body>
<script src="/pusher.js"></script>
<script src="${relayOrigin}/relay.js"${attributes}></script>
<script>${script}</script>`;

/** The customer's site: its pages, pusher-js, and whatever else `answer` answers. */
export async function site(pages, answer = () => 404) {
  const { port, requests } = await serve((request) => {
    if (request.path === '/pusher.js') return [200, pusher, { 'Content-Type': 'text/javascript' }];
    const page = request.method === 'GET' && pages[request.path];
    return page ? [200, page] : answer(request);
  });
  return { origin: `http://app.${SITE}:${port}`, requests };
}

/** What a page of the tests can do, and what it records. */
const HARNESS = `
const events = [];
let relay;
function start(options) {
  relay = new Relay(${JSON.stringify(key)}, options);
  relay.connection.bind('state_change', ({ current }) => events.push(['', current, null]));
  return new Promise((resolve) => relay.connection.bind('connected', resolve));
}
function join(name) {
  return new Promise((resolve) => {
    const channel = relay.subscribe(name);
    channel.bind_global((event, data) => events.push([name, event, JSON.parse(JSON.stringify(data ?? null))]));
    channel.bind('pusher:subscription_succeeded', () => resolve('succeeded'));
    channel.bind('pusher:subscription_error', (error) => resolve(error.status));
  });
}
`;

export const harnessPage = pageWith(HARNESS);

/** Runs before a page's scripts: records each message that another tab sends to this one, whatever becomes of it. */
export function recordMessages() {
  const received = [];
  const Native = globalThis.BroadcastChannel;
  globalThis.received = received;
  globalThis.BroadcastChannel = class extends Native {
    constructor(name) {
      super(name);
      this.addEventListener('message', ({ data }) => received.push(JSON.stringify(data)));
    }
  };
}
