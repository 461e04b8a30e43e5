// Shared by the scripts: the server's address from the environment, stock clients, a stock auth server, and waiting.

import express from 'express';
import PusherServer from 'pusher';
import Pusher from 'pusher-js';

const { RELAY_HOST, RELAY_PORT, RELAY_APP_ID, RELAY_KEY, RELAY_SECRET } = process.env;

export const key = RELAY_KEY;

// P-CFG-1: the options that a page on a hosted plan changes, and no others.
export const clientOptions = {
  cluster: 'mt1',
  wsHost: RELAY_HOST,
  wsPort: Number(RELAY_PORT),
  forceTLS: false,
  enabledTransports: ['ws', 'wss'],
};

// P-ENC-1: the key of encrypted channels, which Relay never receives.
export const masterKey = Buffer.alloc(32, 7).toString('base64');

/** P-CFG-3: the server SDK as its documentation constructs it. */
export const serverSdk = (encryptionMasterKeyBase64 = masterKey) =>
  new PusherServer({
    appId: RELAY_APP_ID,
    key: RELAY_KEY,
    secret: RELAY_SECRET,
    host: RELAY_HOST,
    port: RELAY_PORT,
    useTLS: false,
    encryptionMasterKeyBase64,
  });

export const server = serverSdk();

/** Reports a feature whose assertions have passed, for the table of SDKs. */
export const shown = (sdk, ...features) => features.forEach((feature) => console.log(`shown ${sdk}: ${feature}`));

const clients = [];

/** A stock pusher-js client that asks `endpoint` for signatures, logged in as `user`; `more` are further options. */
export function connect(endpoint, user, more = {}) {
  const options = { ...clientOptions, ...more };
  if (endpoint) {
    options.channelAuthorization = { endpoint, transport: 'ajax', headers: { 'X-User': user } };
  }
  const client = new Pusher(RELAY_KEY, options);
  clients.push(client);
  return client;
}

/** Registers a client created elsewhere to be ended with the others. */
export function adopt(client) {
  clients.push(client);
  return client;
}

/** A constructor for laravel-echo; its clients are ended with the others. */
export class EchoPusher extends Pusher {
  constructor(...given) {
    super(...given);
    clients.push(this);
  }
}

/** Starts the customer's auth server (P-AUTH-7) on a port of its own. `X-User` replaces the login. */
export function authServer(path) {
  const app = express();
  app.use(express.urlencoded({ extended: false }));
  app.post(path, (request, response) => {
    const user = request.get('X-User');
    const { socket_id: socketId, channel_name: channel } = request.body;
    if (!user) return response.sendStatus(401);
    if (channel.includes('forbidden')) return response.sendStatus(403);
    if (!channel.startsWith('presence-')) return response.json(server.authorizeChannel(socketId, channel));
    const member = { user_id: user, user_info: { name: `User ${user}` } };
    return response.json(server.authorizeChannel(socketId, channel, member));
  });
  return listen(app, path);
}

/** Makes an auth server listen on a port of its own; returns the URL of the path. It does not keep the process alive. */
export function listen(app, path) {
  return new Promise((resolve) => {
    const listener = app.listen(0, '127.0.0.1', () => {
      listener.unref();
      resolve(`http://127.0.0.1:${listener.address().port}${path}`);
    });
  });
}

// Shorter than the wait of tests/common/tools.rs for a line, so that this reason is reported.
const PATIENCE_MS = 50_000;

/** Waits for a promise, at most 50 seconds or the given time. */
export function within(what, promise, patienceMs = PATIENCE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${patienceMs} ms: ${what}`)), patienceMs);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until an emitter (connection, channel) emits `event`; returns its data. */
export function once(emitter, event, patienceMs = PATIENCE_MS) {
  const emitted = new Promise((resolve) => {
    const callback = (data) => {
      emitter.unbind(event, callback);
      resolve(data);
    };
    emitter.bind(event, callback);
  });
  return within(event, emitted, patienceMs);
}

/** Waits until a client is connected; returns its socket id. */
export async function connected(client) {
  if (client.connection.state !== 'connected') await once(client.connection, 'connected');
  return client.connection.socket_id;
}

/** Subscribes with success; returns the channel. */
export async function subscribed(client, name) {
  const channel = client.subscribe(name);
  if (!channel.subscribed) await once(channel, 'pusher:subscription_succeeded');
  return channel;
}

/** Collects the events published on a channel: `[event, data]` in the order of arrival, and a promise of the last one. */
export function collect(channel, last = 'end') {
  const events = [];
  const ended = new Promise((resolve) => {
    channel.bind_global((event, data) => {
      if (event.startsWith('pusher:')) return;
      if (event === last) resolve(events);
      else events.push([event, data]);
    });
  });
  return { events, ended: () => within(`${last} on ${channel.name}`, ended) };
}

/** Runs a script's scenario; its failure makes the process fail. */
export async function main(scenario) {
  try {
    await scenario();
    for (const client of clients) client.disconnect();
    process.exitCode = 0;
    console.log('ok');
  } catch (error) {
    console.error(error);
    process.exitCode = 1;
  } finally {
    // Sockets that are still closing must not keep the process alive.
    setTimeout(() => process.exit(), 500).unref();
  }
}
