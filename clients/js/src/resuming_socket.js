// One WebSocket of pusher-js whose channels continue from their last event (R-CLIENT-9, R-CLIENT-10, threat T57).
//
// It is a filter between the socket and pusher-js: subscribes get a `last_event_id`, repeated events are left out, and a
// resume that succeeded is announced. What pusher-js does not handle is not counted: a frame that arrives after pusher-js
// has closed the socket reaches no application, and the next connection asks for that event again.
//
//   subscribe with last_event_id --> succeeded --> awaiting -- the channel's gap ---------------> gap
//                                        |            +------- its next event, or the pong -----> resumed
//                                        +-- the position is that id: nothing was missed -------> resumed

import { isRepeat } from './event_id.js';
import { lastIdOf } from './last_ids.js';

const SUBSCRIPTION_SUCCEEDED = 'pusher_internal:subscription_succeeded';
const GAP = 'pusher:history_gap';
const RESUMED = 'pusher:history_resumed';

/** The URL of a WebSocket whose events have ids (R-HIST-6). */
export function withEventIds(url) {
  return `${url}${url.includes('?') ? '&' : '?'}event_ids=true`;
}

/** Makes a socket that pusher-js has just created resume. `findPusher` returns the Pusher object with a socket id. */
export function makeResuming(socket, findPusher, report) {
  let handler;
  const resuming = new ResumingSocket({
    findPusher,
    report,
    send: socket.send.bind(socket),
    deliver: (message) => handler?.call(socket, message),
  });
  const onmessage = (message) => handler && resuming.receive(message);
  const close = socket.close.bind(socket);
  // First for sockets with an accessor or a plain property of their own class, then for pusher-js.
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
    /** The id that each channel's subscribe contained, until the answer. */
    this.asked = new Map();
    /** Channels that have no gap so far: the id, and the number of the ping whose pong shows that there is none. */
    this.awaiting = new Map();
    this.pings = 0;
    this.pongs = 0;
  }

  /** The entry of a channel of the Pusher object that uses this socket. */
  entry(name) {
    this.pusher ??= this.socketId && this.effects.findPusher(this.socketId);
    // Tabs that share a connection see different parts of its channels.
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

  /** Events up to `resumes_at` may be missing; those after it follow, so it takes the place of the id (H6). */
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

  /** Announces that a channel continues without a gap, as an event of that channel. */
  resumed(name) {
    const awaited = this.awaiting.get(name);
    this.awaiting.delete(name);
    // Handlers of the application may have unsubscribed, or closed this socket.
    if (!awaited || this.isClosed || this.entry(name) !== awaited.entry) return;
    const { after } = awaited;
    try {
      this.effects.deliver({ data: JSON.stringify({ event: RESUMED, channel: name, data: { after } }) });
    } finally {
      this.effects.report('resumed', { pusher: this.pusher, channel: name, after });
    }
  }

  /**
   * A gap is sent together with the answer to the subscribe, and so before the answer to a later ping. One ping at a time
   * shows for all channels that there is none.
   */
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
