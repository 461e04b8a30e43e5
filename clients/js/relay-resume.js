/*! @relay/client, MIT OR Apache-2.0. Generated from clients/js/src by clients/js/build.mjs; do not edit. */
(() => {
'use strict';
const FORM = /^evt_[\w-]{24}$/;
const DIGITS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
function isRepeat(id, last) {
  if (id === last) return true;
  const [one, other] = [partsOf(id), partsOf(last)];
  return Boolean(one && other) && one.order === other.order && one.sequence <= other.sequence;
}
function partsOf(id) {
  if (!FORM.test(id)) return undefined;
  const digits = Array.from(id.slice(4), (character) => DIGITS.indexOf(character));
  const text = (numbers) => String.fromCharCode(...numbers.map((number) => 48 + number));
  return {
    order: text([...digits.slice(0, 13), digits[13] >> 4]),
    sequence: text([digits[13] & 15, ...digits.slice(14)]),
  };
}
const USER_CHANNEL = '#server-to-user-';
const ENTRY = Symbol.for('@relay/client/last-id');
function lastIdOf(pusher, name) {
  const owner = name.startsWith(USER_CHANNEL) ? pusher.user : pusher.channel(name);
  if (!owner) return undefined;
  if (owner[ENTRY]?.name !== name) {
    Object.defineProperty(owner, ENTRY, { configurable: true, value: { name, last: null } });
  }
  return owner[ENTRY];
}
function parseHosts(hosts) {
  if (!Array.isArray(hosts) || hosts.length === 0) {
    throw new TypeError("Relay: resume needs the hosts of your Relay servers: { hosts: ['relay.example.com'] }");
  }
  return hosts.map((entry) => {
    const [, name, port] = /^(\[[\da-f:.]+\]|[^\s/:@?#[\]]+)(?::(\d+))?$/i.exec(entry) ?? [];
    const url = name && parseUrl(`ws://${name}`);
    if (!url) throw new TypeError(`Relay: "${entry}" in hosts is neither a host name nor host:port`);
    return { name: url.hostname, port };
  });
}
function covers(hosts, address) {
  const url = parseUrl(address);
  if (!url) return false;
  const port = url.port || (url.protocol === 'wss:' ? '443' : '80');
  return hosts.some((host) => host.name === url.hostname && (host.port ?? port) === port);
}
function parseUrl(text) {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}
const SUBSCRIPTION_SUCCEEDED = 'pusher_internal:subscription_succeeded';
const GAP = 'pusher:history_gap';
const RESUMED = 'pusher:history_resumed';
function withEventIds(url) {
  return `${url}${url.includes('?') ? '&' : '?'}event_ids=true`;
}
function makeResuming(socket, findPusher, report) {
  let handler;
  const resuming = new ResumingSocket({
    findPusher,
    report,
    send: socket.send.bind(socket),
    deliver: (message) => handler?.call(socket, message),
  });
  const onmessage = (message) => handler && resuming.receive(message);
  const close = socket.close.bind(socket);
  socket.onmessage = onmessage;
  Object.defineProperty(socket, 'onmessage', {
    configurable: true,
    get: () => onmessage,
    set: (value) => {
      handler = value;
    },
  });
  socket.send = (data) => resuming.send(data);
  socket.close = (...given) => {
    resuming.isClosed = true;
    return close(...given);
  };
}
class ResumingSocket {
  constructor(effects) {
    this.effects = effects;
    this.asked = new Map();
    this.awaiting = new Map();
    this.pings = 0;
    this.pongs = 0;
  }
  entry(name) {
    this.pusher ??= this.socketId && this.effects.findPusher(this.socketId);
    if (!this.pusher || ['leader', 'follower'].includes(this.pusher.sharing)) return undefined;
    return lastIdOf(this.pusher, name);
  }
  send(data) {
    const message = typeof data === 'string' && data.startsWith('{"event":"pusher:') ? parseFrame(data) : undefined;
    if (message?.event === 'pusher:ping') this.pings += 1;
    const name = message?.data?.channel;
    if (typeof name === 'string') {
      this.asked.delete(name);
      this.awaiting.delete(name);
    }
    const isSubscribe = message?.event === 'pusher:subscribe' && typeof name === 'string';
    const last = isSubscribe && !('last_event_id' in message.data) && this.entry(name)?.last;
    if (!last) return this.effects.send(data);
    this.asked.set(name, last);
    message.data.last_event_id = last;
    return this.effects.send(JSON.stringify(message));
  }
  receive(message) {
    if (this.isClosed) return;
    const frame = parseFrame(message.data);
    const name = frame?.channel;
    if (frame?.event === 'pusher:connection_established') this.socketId = parseFrame(frame.data)?.socket_id;
    const entry = typeof name === 'string' ? this.entry(name) : undefined;
    if (entry && frame.event === SUBSCRIPTION_SUCCEEDED) {
      this.subscribed(entry, message, parseFrame(frame.data)?.position);
    } else if (entry && frame.event === GAP) {
      this.gap(entry, message, parseFrame(frame.data));
    } else if (entry && typeof frame.id === 'string') {
      this.event(entry, message, frame.id);
    } else {
      this.effects.deliver(message);
      if (frame?.event === 'pusher:pong') this.pong();
    }
  }
  subscribed(entry, message, position) {
    const after = this.asked.get(entry.name);
    this.asked.delete(entry.name);
    if (after === undefined) entry.last = position ?? null;
    else this.awaiting.set(entry.name, { entry, after });
    try {
      this.effects.deliver(message);
    } finally {
      if (position === after) this.resumed(entry.name);
      else this.ping();
    }
  }
  gap(entry, message, data) {
    this.awaiting.delete(entry.name);
    entry.last = data?.resumes_at ?? null;
    try {
      this.effects.deliver(message);
    } finally {
      this.effects.report('gap', { pusher: this.pusher, channel: entry.name, ...data });
    }
  }
  event(entry, message, id) {
    if (entry.last !== null && isRepeat(id, entry.last)) return;
    this.resumed(entry.name);
    if (this.isClosed || this.entry(entry.name) !== entry) return;
    entry.last = id;
    this.effects.deliver(message);
  }
  resumed(name) {
    const awaited = this.awaiting.get(name);
    this.awaiting.delete(name);
    if (!awaited || this.isClosed || this.entry(name) !== awaited.entry) return;
    const { after } = awaited;
    try {
      this.effects.deliver({ data: JSON.stringify({ event: RESUMED, channel: name, data: { after } }) });
    } finally {
      this.effects.report('resumed', { pusher: this.pusher, channel: name, after });
    }
  }
  ping() {
    if (this.isClosed || this.awaiting.size === 0 || this.pings > this.pongs) return;
    this.pings += 1;
    for (const awaited of this.awaiting.values()) awaited.ping ??= this.pings;
    this.effects.send('{"event":"pusher:ping","data":{}}');
  }
  pong() {
    this.pongs += 1;
    for (const [name, { ping }] of [...this.awaiting]) if (ping <= this.pongs) this.resumed(name);
    this.ping();
  }
}
function parseFrame(text) {
  if (typeof text !== 'string') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
const EVENTS = ['gap', 'resumed'];
const LISTENERS = Symbol.for('@relay/client/resume');
function resume(Pusher, { hosts } = {}) {
  const resuming = new Resume(parseHosts(hosts));
  return resuming.attach(Pusher);
}
class Resume {
  constructor(hosts) {
    this.hosts = hosts;
    this.listeners = new Map(EVENTS.map((event) => [event, new Set()]));
  }
  on(event, listener) {
    this.listenersOf(event).add(listener);
    return this;
  }
  off(event, listener) {
    this.listenersOf(event).delete(listener);
    return this;
  }
  listenersOf(event) {
    const listeners = this.listeners.get(event);
    if (!listeners) throw new TypeError(`Relay: there is no event "${event}", only ${EVENTS.join(' and ')}`);
    return listeners;
  }
  report(event, details) {
    for (const listener of [...this.listenersOf(event)]) {
      try {
        listener(details);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
  covers(address) {
    return covers(this.hosts, address);
  }
  attach(Pusher) {
    if (!isPusherClass(Pusher)) {
      throw new TypeError('Relay: resume needs the class that pusher-js exports, with its Runtime and instances');
    }
    const { Runtime } = Pusher;
    if (!Runtime[LISTENERS]) {
      Runtime[LISTENERS] = new Set();
      wrapSockets(Pusher, Runtime[LISTENERS]);
      wrapStrategy(Runtime, Runtime[LISTENERS]);
    }
    Runtime[LISTENERS].add(this);
    return this;
  }
}
function isPusherClass(value) {
  return typeof value?.Runtime?.createWebSocket === 'function' && Array.isArray(value.instances);
}
function wrapSockets({ Runtime, instances }, listeners) {
  const { createWebSocket } = Runtime;
  Runtime.createWebSocket = (url) => {
    const interested = [...listeners].filter((listener) => listener.covers(url));
    if (interested.length === 0) return createWebSocket.call(Runtime, url);
    const socket = createWebSocket.call(Runtime, withEventIds(url));
    makeResuming(
      socket,
      (socketId) => instances.find(({ connection }) => connection?.socket_id === socketId),
      (event, details) => interested.forEach((listener) => listener.report(event, details)),
    );
    return socket;
  };
}
function wrapStrategy(Runtime, listeners) {
  const { getDefaultStrategy } = Runtime;
  Runtime.getDefaultStrategy = (config, options, defineTransport) => {
    const { wsHost, wsPort, wssPort } = config;
    const addresses = [`ws://${wsHost}:${wsPort}`, `wss://${wsHost}:${wssPort}`];
    const isCovered = [...listeners].some((listener) => addresses.some((address) => listener.covers(address)));
    return getDefaultStrategy.call(Runtime, config, options, (...given) => {
      const [, , type, , , manager] = given;
      if (isCovered && type === 'ws' && manager) manager.livesLeft = Infinity;
      return defineTransport(...given);
    });
  };
}
function resumeInPage(script) {
  const resuming = new Resume(hostsOf(script));
  attachToGlobal(resuming);
  return resuming;
}
function hostsOf(script) {
  const given = script?.dataset.hosts?.split(/[\s,]+/).filter(Boolean);
  if (given?.length > 0) return parseHosts(given);
  if (/^https?:/.test(script?.src ?? '')) return parseHosts([new URL(script.src).hostname]);
  console.warn('relay-resume.js: no host of Relay is known: load it by <script src>, with data-hosts if it is a copy');
  return [];
}
function attachToGlobal(resuming) {
  let current;
  const set = (value) => {
    current = value;
    if (isPusherClass(value)) resuming.attach(value);
  };
  set(globalThis.Pusher);
  const existing = Object.getOwnPropertyDescriptor(globalThis, 'Pusher');
  if (existing?.configurable === false) return;
  Object.defineProperty(globalThis, 'Pusher', { configurable: true, enumerable: true, get: () => current, set });
}
globalThis.RelayResume = resumeInPage(globalThis.document?.currentScript);
})();
