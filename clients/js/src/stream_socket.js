// What pusher-js gets in place of a WebSocket while WebSockets are blocked: to pusher-js it speaks the Pusher protocol, to
// Relay HTTP (R-CLIENT-14 to R-CLIENT-16).
//
// Its channels are read by one request at a time, a stream or a poll, which continues after the last id that the one
// before it had. The request is made anew when channels come or go. A new channel gets `subscription_succeeded` when the
// answer begins, then its gap, then its events.

import { readEvents } from './event_stream.js';
import { FETCH_OPTIONS, needsWebSocket } from './over_http.js';

const CHANNELS_MAX = 100;
const URL_BYTES_MAX = 8000;
/** Changes of channels within this time are one. */
const CHANGE_DELAY_MS = 10;
/** Relay sends a stream something every 15 to 25 s. */
const STREAM_SILENCE_MS_MAX = 40_000;
const STALLS_MAX = 2;
const POLL_TIMEOUT_S = 25;
/** A poll that answers whether its new channels may be read. */
const FIRST_POLL_TIMEOUT_S = 1;
const POLL_MARGIN_MS = 10_000;
const LOSSES_MAX = 4;
const LOSS_DELAY_MS = 500;
const LOSS_DELAY_MS_MAX = 30_000;
const ACTIVITY_TIMEOUT_S = 30;

export class StreamSocket {
  constructor(fallback) {
    this.fallback = fallback;
    this.id = fallback.streamId();
    /** For each channel its signature, and where it starts, until an answer has it. */
    this.channels = new Map();
    this.losses = 0;
    this.stalls = 0;
    this.later(() => {
      this.heardAt = Date.now();
      this.onopen?.({});
      this.emit({
        event: 'pusher:connection_established',
        data: JSON.stringify({ socket_id: this.id, activity_timeout: ACTIVITY_TIMEOUT_S }),
      });
      fallback.opened();
    });
  }

  // What pusher-js calls.

  send(text) {
    const { event, data } = JSON.parse(text);
    if (event === 'pusher:subscribe') this.subscribe(data);
    else if (event === 'pusher:unsubscribe') this.unsubscribe(data.channel);
    else if (event === 'pusher:ping') this.pong();
    else if (event === 'pusher:signin') this.refuse('signin()');
    else if (event.startsWith('client-')) this.refuse('A client event');
  }

  close() {
    this.end(1000);
  }

  /** Ends the connection. pusher-js reports no error for code 1000, and connects again after 1 s unless it closed it. */
  end(code) {
    if (this.isClosed) return;
    this.isClosed = true;
    this.request?.abort();
    clearTimeout(this.changing);
    this.fallback.ended(this, code !== 1000);
    setTimeout(() => this.onclose?.({ code, reason: '', wasClean: code === 1000 }));
  }

  later(action) {
    setTimeout(() => {
      if (!this.isClosed) action();
    });
  }

  emit(message) {
    this.deliver(JSON.stringify(message));
  }

  /** An error of the application's handlers is reported as uncaught, as in a WebSocket. */
  deliver(data) {
    if (this.isClosed) return;
    try {
      this.onmessage?.({ data });
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  refuse(what) {
    this.later(() => {
      this.emit({ event: 'pusher:error', data: { code: 4301, message: needsWebSocket(what).message } });
    });
  }

  async pong() {
    const isAlive = Date.now() - this.heardAt < STREAM_SILENCE_MS_MAX || (await this.fallback.check());
    if (isAlive) this.later(() => this.emit({ event: 'pusher:pong', data: '{}' }));
  }

  // Channels.

  subscribe({ channel: name, auth, last_event_id: after = '' }) {
    if (name.startsWith('presence-') || name.startsWith('#')) {
      this.reject(name, needsWebSocket(name));
      return;
    }
    this.channels.set(name, { auth, after, isNew: true });
    this.change();
  }

  unsubscribe(name) {
    if (this.channels.delete(name)) this.change();
  }

  change() {
    this.changing ??= setTimeout(() => {
      this.changing = undefined;
      this.restart();
    }, CHANGE_DELAY_MS);
  }

  restart() {
    this.request?.abort();
    this.request = undefined;
    if (this.isClosed || this.channels.size === 0) return;
    this.request = new AbortController();
    this.read(this.request.signal);
  }

  reject(name, { message, type, status }) {
    this.channels.delete(name);
    const data = JSON.stringify({ type, error: message, status });
    this.later(() => this.emit({ event: 'pusher:subscription_error', channel: name, data }));
  }

  /** A channel is part of the answer that begins, at this position; `shown` is what the page may see of it. */
  succeed(name, position, shown) {
    const channel = this.channels.get(name);
    if (!channel) return;
    channel.hasHistory = Boolean(position);
    if (!channel.isNew) return;
    channel.isNew = false;
    const data = JSON.stringify(shown ? { position: shown } : {});
    this.emit({ event: 'pusher_internal:subscription_succeeded', channel: name, data });
  }

  gap({ channel, ...missed }) {
    if (this.channels.has(channel)) this.emit({ event: 'pusher:history_gap', channel, data: JSON.stringify(missed) });
  }

  // Requests.

  async read(signal) {
    while (!signal.aborted) {
      const asked = this.ask();
      if (asked.names.length === 0) return;
      try {
        await (this.fallback.mode === 'poll' ? this.poll(asked, signal) : this.stream(asked, signal));
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refusal) this.refused(asked, error);
        else await this.lost(error, signal);
      }
    }
  }

  /** The channels of the next request: those that are read already, and of the new ones as many as fit. */
  ask() {
    const known = [...this.channels].filter(([, { isNew }]) => !isNew).map(([name]) => name);
    const fresh = [...this.channels].filter(([, { isNew }]) => isNew).map(([name]) => name);
    const asked = { names: known, fresh: [] };
    for (const name of fresh) {
      const next = { names: [...asked.names, name], fresh: [...asked.fresh, name] };
      if (next.names.length > CHANNELS_MAX || this.url(next, 0).length > URL_BYTES_MAX) {
        // Once the others are read, they take less space.
        if (asked.fresh.length > 0) break;
        this.reject(name, Object.assign(needsWebSocket(`${name}, beyond ${CHANNELS_MAX} channels or the 8 KiB that ` +
          'their names and signatures may have in a request,'), { status: 413 }));
      } else {
        Object.assign(asked, next);
        if (this.isOneByOne) break;
      }
    }
    return asked;
  }

  url({ names }, timeout) {
    const enc = encodeURIComponent;
    let query = `&positions=true&socket_id=${this.id}&channels=${names.map(enc).join(',')}`;
    for (const name of names) {
      const { auth } = this.channels.get(name);
      if (auth) query += `&auth[${enc(name)}]=${enc(auth)}`;
    }
    // The last id says where the others continue, but not those without history.
    for (const name of names) {
      const { isNew, after, hasHistory } = this.channels.get(name);
      if (isNew || (this.lastId && !hasHistory)) query += `&after[${enc(name)}]=${isNew ? enc(after) : ''}`;
    }
    if (this.lastId) query += `&last_event_id=${enc(this.lastId)}`;
    return timeout ? this.fallback.url('poll', `${query}&timeout=${timeout}`) : this.fallback.url('sse', query);
  }

  /** The answer to a request, if it is not a refusal. */
  async fetch(url, signal) {
    const response = await fetch(url, { ...FETCH_OPTIONS, signal });
    if (response.ok) return response;
    const { error, message } = await response.json().catch(() => ({}));
    const isRelays = typeof error === 'string' && typeof message === 'string';
    if (isRelays && response.status < 500 && response.status !== 429) throw new Refusal(response.status, message);
    const failure = new Error(`Relay answered ${response.status}`);
    failure.delayMs = Math.min(Number(response.headers.get('Retry-After')) * 1000, LOSS_DELAY_MS_MAX);
    throw failure;
  }

  async stream(asked, signal) {
    const timer = new Timer(signal);
    const continues = Boolean(this.lastId) || asked.fresh.some((name) => this.channels.get(name).after);
    try {
      timer.start(this.fallback.options.timeout);
      const response = await this.fetch(this.url(asked, 0), timer.signal);
      await this.readStream(asked, continues, response.body, timer);
      throw new Error('the stream ended');
    } catch (error) {
      if (signal.aborted || !timer.isLate) throw error;
      // Nothing came in time. If the server answers meanwhile, something in between holds the stream.
      this.stalls += timer.isBeginning ? STALLS_MAX : 1;
      const isHeld = this.stalls >= STALLS_MAX && (await this.fallback.check());
      if (!isHeld || !this.fallback.streamsAreHeld()) throw error;
    } finally {
      timer.end();
    }
  }

  readStream(asked, continues, body, timer) {
    let connected;
    const begin = (gaps) => {
      for (const name of asked.names) this.succeed(name, connected.positions[name], connected.positions[name]);
      gaps.forEach((gap) => this.gap(gap));
      connected = undefined;
      this.losses = 0;
      this.askForRest();
    };
    const onBytes = () => {
      this.heardAt = Date.now();
      if (timer.isBeginning) return;
      this.stalls = 0;
      timer.start(STREAM_SILENCE_MS_MAX);
    };
    return readEvents(body, timer.signal, onBytes, (name, id, text) => {
      const data = JSON.parse(text);
      if (id) this.lastId = id;
      if (data.channel !== undefined) {
        if (this.channels.has(data.channel)) this.deliver(text);
      } else if (name === 'connected') {
        timer.isBeginning = false;
        timer.start(STREAM_SILENCE_MS_MAX);
        connected = data;
        // If something was missed, the gap follows, and it comes before the events too.
        if (data.resumed || !continues) begin([]);
      } else if (name === 'gap') {
        if (connected) begin(data.channels);
        else data.channels.forEach((gap) => this.gap(gap));
      }
    });
  }

  async poll(asked, signal) {
    const timeout = asked.fresh.length > 0 ? FIRST_POLL_TIMEOUT_S : POLL_TIMEOUT_S;
    const timer = new Timer(signal);
    try {
      timer.start(timeout * 1000 + POLL_MARGIN_MS);
      const response = await this.fetch(this.url(asked, timeout), timer.signal);
      const { events, gaps, positions, last_event_id: lastId } = await response.json();
      if (signal.aborted) return;
      this.heardAt = Date.now();
      this.losses = 0;
      this.lastId = lastId ?? this.lastId;
      const withEvents = new Set(events.map(({ channel }) => channel));
      // The positions are those after the events, which must not look repeated.
      for (const name of asked.names) this.succeed(name, positions[name], withEvents.has(name) ? null : positions[name]);
      gaps.forEach((gap) => this.gap(gap));
      for (const { id, ...event } of events) if (this.channels.has(event.channel)) this.emit({ ...event, id });
    } finally {
      timer.end();
    }
  }

  /** New channels that did not fit, or that are asked for one by one, need another stream. */
  askForRest() {
    const isRest = [...this.channels.values()].some(({ isNew }) => isNew);
    if (isRest) this.change();
    else this.isOneByOne = false;
  }

  /** Relay does not let the client read these channels: a new one is the reason, or else the id has expired. */
  refused({ fresh }, refusal) {
    if (fresh.length === 0) {
      this.end(1000);
    } else if (fresh.length === 1) {
      this.reject(fresh[0], refusal);
    } else {
      this.isOneByOne = true;
    }
  }

  async lost({ delayMs }, signal) {
    this.losses += 1;
    if (this.losses >= LOSSES_MAX) {
      this.end(1006);
      return;
    }
    const delay = Math.max(LOSS_DELAY_MS * 2 ** (this.losses - 1) * (0.5 + Math.random()), delayMs || 0);
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, delay);
      signal.addEventListener('abort', () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
    this.type = status === 401 || status === 403 ? 'AuthError' : 'FallbackError';
  }
}

/** A signal that is aborted with another one, or when too much time has passed. */
class Timer {
  constructor(outer) {
    this.outer = outer;
    this.controller = new AbortController();
    this.signal = this.controller.signal;
    this.abort = () => this.controller.abort();
    outer.addEventListener('abort', this.abort);
    this.isBeginning = true;
  }

  start(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.isLate = true;
      this.abort();
    }, ms);
  }

  end() {
    clearTimeout(this.timer);
    this.outer.removeEventListener('abort', this.abort);
    this.abort();
  }
}
