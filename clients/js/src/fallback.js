// When a client reads its channels over HTTP because WebSockets are blocked, and when it returns (R-CLIENT-13 to
// R-CLIENT-17).
//
//              blocked, and HTTP works            `connected` does not arrive
//   WebSocket -------------------------> streams -----------------------------> polls
//       ^                                   | a WebSocket works again             |
//       +-----------------------------------+-------------------------------------+
//
// pusher-js keeps its strategies and connection manager: what its transport `ws` opens is a `StreamSocket` then. A
// client whose WebSocket works does nothing here but start and stop one timer for each connection.

import { FETCH_OPTIONS, isStreamId } from './over_http.js';
import { relayUrl } from './place.js';
import { makeResuming, withEventIds } from './resuming_socket.js';
import { StreamSocket } from './stream_socket.js';

const TRANSPORTS = ['sse', 'poll'];
const TIMEOUT_MS = 5000;
const RETRY_INTERVAL_MS = 60_000;
const RETRY_INTERVAL_MS_MAX = 300_000;
/** After a check of HTTP that failed, the next one is made after this many times `timeout`. */
const CHECK_INTERVAL_TIMEOUTS = 3;
/** One that succeeded counts for this long. */
const FRESH_CHECK_MS = 2000;
/** WebSockets in a row that must fail without a message, or end this soon after their first one, or have no second. */
const FAILURES_MIN = 2;
const SHORT_LIVES_MIN = 3;
const SHORT_LIFE_MS = 10_000;
/** Relay's auth endpoint signs for an id for 10 minutes (R-SSE-5). */
const SIGNED_ID_MS_MAX = 540_000;

/** Where a transport of pusher-js keeps that it was wrapped, and where `resume` keeps who listens. */
const WRAPPED = Symbol.for('@relay/client/fallback');
const RESUMING = Symbol.for('@relay/client/resume');

/** The option `fallback` (R-CLIENT-13); undefined if the client uses WebSockets only. */
export function fallbackOptions(option) {
  option ??= true;
  if (option === false || typeof fetch !== 'function') return undefined;
  const given = Array.isArray(option) ? { transports: option } : option === true ? {} : option;
  const { transports = TRANSPORTS, timeout = TIMEOUT_MS, retryInterval = RETRY_INTERVAL_MS } = given;
  const areTransports = Array.isArray(transports) && transports.every((name) => TRANSPORTS.includes(name));
  if (typeof option !== 'object' && option !== true) {
    throw new TypeError('Relay: fallback is true, false, a list of "sse" and "poll", or an object');
  }
  if (!areTransports || transports.length === 0) {
    throw new TypeError(`Relay: fallback takes the transports "sse" and "poll", not ${JSON.stringify(transports)}`);
  }
  for (const [name, value] of Object.entries({ timeout, retryInterval })) {
    if (!(Number.isFinite(value) && value >= 100)) throw new TypeError(`Relay: fallback.${name} is at least 100 ms`);
  }
  return { transports, timeout, retryInterval };
}

export class Fallback {
  /** Of a client, with options as `fallbackOptions` returns them. */
  constructor(relay, Runtime, options) {
    this.relay = relay;
    this.Runtime = Runtime;
    this.options = options;
    /** `sse` or `poll` while the client uses HTTP. */
    this.mode = null;
    this.wasUsed = false;
    this.failures = 0;
    this.shortLives = 0;
    this.clockOffsetMs = 0;
    wrapTransport(Runtime);
  }

  /** Options of a strategy, which lead `wrapTransport` to this object. pusher-js copies no functions. */
  marked(options) {
    return { ...options, relayFallback: () => this };
  }

  /** What carries the client's own connection. */
  transport() {
    if (this.socket) return this.mode ?? undefined;
    return this.relay.connection.connection ? 'websocket' : undefined;
  }

  // Connecting.

  /** The strategy that pusher-js connects by; `own` is its strategy for WebSockets. */
  strategy(own) {
    return {
      isSupported: () => own.isSupported(),
      connect: (minPriority, callback) => {
        this.attempt?.end();
        const attempt = new Attempt(this, own, minPriority, callback);
        this.attempt = attempt;
        attempt.start();
        return attempt;
      },
    };
  }

  /** In place of a WebSocket: `open(url)` opens one. */
  createSocket(open, url, useTLS) {
    const isMain = Boolean(useTLS) === Boolean(this.relay.connection.usingTLS);
    if (!this.mode) {
      const socket = this.wasUsed ? this.openResuming(open, url) : open(url);
      if (isMain) this.watch(socket, this.attempt);
      return socket;
    }
    // Beside ws, pusher-js tries wss on another port.
    if (!isMain) throw new Error('Relay: WebSockets are blocked');
    this.retryWith = () => open(url);
    const socket = new StreamSocket(this);
    this.socket = socket;
    if (!url.includes('event_ids=')) this.makeResuming(socket, url);
    return socket;
  }

  /** A WebSocket whose channels continue after their last events, unless `resume` cares for that. */
  openResuming(open, url) {
    if (this.listeners(url).length > 0) return open(url);
    const socket = open(withEventIds(url));
    this.makeResuming(socket, url);
    return socket;
  }

  makeResuming(socket, url) {
    const report = (event, details) => this.listeners(url).forEach((listener) => listener.report(event, details));
    makeResuming(socket, () => this.relay, report);
  }

  /** Those that called `resume` for the host of this URL. */
  listeners(url) {
    return [...(this.Runtime[RESUMING] ?? [])].filter((listener) => listener.covers(url));
  }

  /** Notes how a WebSocket fares, without changing it. */
  watch(socket, attempt) {
    if (!attempt || typeof socket?.addEventListener !== 'function') return;
    const run = attempt.run;
    let firstMessageAt;
    let messages = 0;
    socket.addEventListener('message', () => {
      firstMessageAt ??= Date.now();
      messages += 1;
      this.failures = 0;
    });
    socket.addEventListener('close', ({ wasClean, code }) => {
      if (firstMessageAt === undefined) {
        if (run === attempt.run) this.noteFailure();
        return;
      }
      const isClean = wasClean || (code >= 1000 && code !== 1006);
      const isShort = Date.now() - firstMessageAt < SHORT_LIFE_MS;
      if (!isClean && (isShort || messages === 1)) {
        this.shortLives += 1;
      } else {
        this.shortLives = 0;
      }
    });
  }

  noteFailure() {
    this.failures += 1;
    this.attempt?.suspect();
  }

  isBlocked() {
    return this.failures >= FAILURES_MIN || this.shortLives >= SHORT_LIVES_MIN;
  }

  /** From now on channels are read over HTTP. */
  use(mode) {
    this.mode = mode;
    this.wasUsed = true;
    this.retries = 0;
  }

  /** The next connection tries the WebSocket first. */
  reset() {
    this.mode = null;
    this.endProbe?.();
    clearTimeout(this.retryTimer);
    this.failures = 0;
    this.shortLives = 0;
  }

  /** The application has disconnected. */
  stop() {
    this.attempt?.end();
    this.socket = null;
    this.reset();
  }

  // HTTP.

  /** The address of a route of the app (R-SSE-11). */
  url(path, query = '') {
    const { config, key, connection } = this.relay;
    const base = relayUrl({ ...config, useTLS: connection.usingTLS });
    return `${base}/app/${encodeURIComponent(key)}/${path}?key=${encodeURIComponent(key)}${query}`;
  }

  /** Whether Relay answers over HTTP. Its clock gives the times of stream ids. */
  async check() {
    if (Date.now() - this.checkedAt < FRESH_CHECK_MS) return true;
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), this.options.timeout);
    try {
      const response = await fetch(this.url('time'), { ...FETCH_OPTIONS, signal: controller.signal });
      const { unix_time: seconds } = await response.json();
      if (!response.ok || !Number.isFinite(seconds)) return false;
      this.checkedAt = Date.now();
      this.clockOffsetMs = seconds * 1000 - this.checkedAt;
      return true;
    } catch {
      return false;
    } finally {
      clearTimeout(timer);
    }
  }

  /** An id for a stream (R-SSE-5). */
  streamId() {
    this.idAt = Date.now();
    const seconds = Math.floor((this.idAt + this.clockOffsetMs) / 1000);
    return `0.${seconds}${String(Math.floor(Math.random() * 1e9)).padStart(9, '0')}`;
  }

  /** True if Relay's auth endpoint would not sign for this id: the client reconnects with another one then. */
  renews(socketId) {
    const { socket } = this;
    if (!isStreamId(socketId) || socket?.id !== socketId || Date.now() - this.idAt < SIGNED_ID_MS_MAX) return false;
    socket.end(1000);
    return true;
  }

  // What a `StreamSocket` reports.

  opened() {
    this.scheduleRetry();
  }

  /** Streams do not arrive as they are sent, so polls take their place; false if the options do not allow them. */
  streamsAreHeld() {
    if (!this.options.transports.includes('poll')) return false;
    this.mode = 'poll';
    return true;
  }

  ended(socket, isLost) {
    if (this.socket !== socket) return;
    this.socket = null;
    clearTimeout(this.retryTimer);
    if (isLost) this.reset();
  }

  // Returning.

  scheduleRetry() {
    clearTimeout(this.retryTimer);
    const { retryInterval } = this.options;
    const limit = Math.max(retryInterval, RETRY_INTERVAL_MS_MAX);
    this.retryTimer = setTimeout(() => this.probe(), jittered(Math.min(retryInterval * 2 ** this.retries, limit)));
  }

  /** Opens a WebSocket beside the stream: if it carries messages both ways, the connection moves to one. */
  probe() {
    let socket;
    const finish = (works) => {
      if (!this.endProbe) return;
      this.endProbe = null;
      clearTimeout(timer);
      socket?.close();
      if (!this.socket || !this.mode) return;
      if (works) {
        const current = this.socket;
        this.reset();
        current.end(1000);
      } else {
        this.retries += 1;
        this.scheduleRetry();
      }
    };
    this.endProbe = () => finish(false);
    const timer = setTimeout(this.endProbe, this.options.timeout);
    try {
      socket = this.retryWith();
      socket.onerror = this.endProbe;
      socket.onclose = () => this.endProbe?.();
      socket.onmessage = ({ data }) => {
        const event = /^\{"event":"pusher:(\w+)"/.exec(data)?.[1];
        if (event === 'connection_established') socket.send('{"event":"pusher:ping","data":{}}');
        else if (event === 'pong') finish(true);
      };
    } catch {
      finish(false);
    }
  }
}

/** A time that differs by up to 20 %, so that clients do not act at once. */
function jittered(ms) {
  return ms * (0.8 + Math.random() * 0.4);
}

/** One attempt of pusher-js's connection manager to connect: a runner of its strategies. */
class Attempt {
  constructor(fallback, own, minPriority, callback) {
    Object.assign(this, { fallback, own, minPriority, callback });
    /** Counts starts of `own`; WebSockets of earlier ones were given up. */
    this.run = 0;
  }

  start() {
    const { fallback } = this;
    this.run += 1;
    this.runner = this.own.connect(this.minPriority, (error, handshake) => {
      this.end();
      this.callback(error, handshake);
    });
    if (this.isOver || fallback.mode) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.suspect(true), fallback.options.timeout);
    if (fallback.isBlocked()) this.suspect();
  }

  /**
   * A WebSocket has failed, or says nothing: is it only WebSockets that do not get through? What failed while the server
   * could not be reached at all proves nothing, and neither does one failure: the server may just have started.
   */
  async suspect(isLate = false) {
    const { fallback } = this;
    if (this.isOver || this.isChecking || fallback.mode) return;
    this.isChecking = true;
    const works = await fallback.check();
    this.isChecking = false;
    if (this.isOver || fallback.mode) return;
    clearTimeout(this.timer);
    if (!works) {
      fallback.failures = 0;
      fallback.shortLives = 0;
      this.timer = setTimeout(() => this.suspect(), jittered(CHECK_INTERVAL_TIMEOUTS * fallback.options.timeout));
      return;
    }
    if (isLate || fallback.isBlocked()) fallback.use(fallback.options.transports[0]);
    const { runner } = this;
    this.run += 1;
    runner.abort();
    this.start();
  }

  end() {
    this.isOver = true;
    clearTimeout(this.timer);
  }

  abort() {
    this.end();
    this.runner?.abort();
  }

  forceMinPriority(priority) {
    this.runner?.forceMinPriority(priority);
  }
}

/** Makes pusher-js's transport `ws` ask the client's `Fallback`, which marks its strategies, for its sockets. */
function wrapTransport(Runtime) {
  const { hooks } = Runtime.Transports.ws;
  if (hooks[WRAPPED]) return;
  hooks[WRAPPED] = true;
  const { getSocket } = hooks;
  hooks.getSocket = (url, options) => {
    const open = (address) => getSocket.call(hooks, address, options);
    const fallback = options?.relayFallback?.();
    return fallback ? fallback.createSocket(open, url, options.useTLS) : open(url);
  };
  // Before 8.2, pusher-js gives up WebSockets for good after two that ended soon and uncleanly (R-CLIENT-12), and with
  // them what takes their place. It keeps those of a client that may fall back.
  const { getDefaultStrategy } = Runtime;
  Runtime.getDefaultStrategy = (config, options, defineTransport) =>
    getDefaultStrategy.call(Runtime, config, options, (...given) => {
      const [, , type, , , manager] = given;
      if (options?.relayFallback && type === 'ws' && manager) manager.livesLeft = Infinity;
      return defineTransport(...given);
    });
}
