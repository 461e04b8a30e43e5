// Shared by the scripts of the JavaScript client: the server and the app from the environment, signatures and publishes
// that no SDK makes, endpoints of a customer, and waiting. Without packages, so that it runs on every runtime.

import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import process from 'node:process';

const { RELAY_HOST, RELAY_PORT, RELAY_APP_ID, RELAY_KEY, RELAY_SECRET } = process.env;

export const key = RELAY_KEY;
export const appId = RELAY_APP_ID;
export const relayHost = RELAY_HOST;
export const relayPort = Number(RELAY_PORT);

/** Outside of a page the host is the one thing that the client cannot know. */
export const place = { wsHost: RELAY_HOST, wsPort: relayPort, forceTLS: false };

function hmac(text) {
  return `${RELAY_KEY}:${createHmac('sha256', RELAY_SECRET).update(text).digest('hex')}`;
}

/** The answer of an auth endpoint for a channel; presence channels with this member. */
export function signed(socketId, channel, member) {
  if (!channel.startsWith('presence-')) return { auth: hmac(`${socketId}:${channel}`) };
  const channelData = JSON.stringify(member);
  return { auth: hmac(`${socketId}:${channel}:${channelData}`), channel_data: channelData };
}

/** The answer of an auth endpoint for a user. */
export function signedUser(socketId, user) {
  const userData = JSON.stringify(user);
  return { auth: hmac(`${socketId}::user::${userData}`), user_data: userData };
}

/** Calls Relay's HTTP API. */
export async function api(method, path, body) {
  const response = await fetch(`http://${RELAY_HOST}:${RELAY_PORT}/api/v1/apps/${RELAY_APP_ID}${path}`, {
    method,
    headers: { 'X-Relay-Key': RELAY_KEY, 'X-Relay-Secret': RELAY_SECRET, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return JSON.parse(text);
}

export const publish = (channel, name, data = {}) =>
  api('POST', '/events', { name, channels: [channel], data: JSON.stringify(data) });

/**
 * Serves HTTP on a port of its own. `answer` gets `{method, path, query, headers, form, text}` and returns a status, or
 * `[status, body, headers]`: an object as body is JSON. Returns the port and the requests so far.
 */
export function serve(answer) {
  const requests = [];
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const part of request) text += part;
    const url = new URL(request.url, 'http://localhost');
    const { method, headers } = request;
    const entry = { method, path: url.pathname, query: url.search, headers, text, form: new URLSearchParams(text) };
    requests.push(entry);
    const [status, body = '', more = {}] = [await answer(entry)].flat(1);
    const isJson = typeof body === 'object' && !(body instanceof Uint8Array);
    response.writeHead(status, { 'Content-Type': isJson ? 'application/json' : 'text/html; charset=utf-8', ...more });
    response.end(isJson ? JSON.stringify(body) : body);
  });
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      server.unref();
      resolve({ port: server.address().port, requests });
    });
  });
}

// Shorter than the wait of tests/common/tools.rs for a line, so that this reason is reported.
const PATIENCE_MS = 50_000;

/** Waits for a promise, at most 50 seconds. */
export function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${PATIENCE_MS} ms: ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until an emitter (connection, channel, user) emits `event`; returns its data. */
export function once(emitter, event) {
  const emitted = new Promise((resolve) => {
    const callback = (data) => {
      emitter.unbind(event, callback);
      resolve(data);
    };
    emitter.bind(event, callback);
  });
  return within(event, emitted);
}

/** Waits until a condition holds: for what nothing announces, such as a count at the server. */
export async function eventually(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Runs a script's scenario; its failure makes the process fail. */
export async function main(scenario) {
  try {
    await scenario();
    console.log('ok');
    process.exitCode = 0;
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  } finally {
    // Sockets that are still closing must not keep the process alive.
    setTimeout(() => process.exit(), 500).unref?.();
  }
}
