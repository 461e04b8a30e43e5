/*! @relay/client, MIT OR Apache-2.0. Generated from clients/js/src by clients/js/build.mjs; do not edit. */
(() => {
'use strict';
const scriptUrl = globalThis.document?.currentScript?.src;
if (!globalThis.Pusher) throw new Error('relay.js: load pusher-js before this script; there is no global Pusher');
function webUrl(text) {
  try {
    const url = new URL(text);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url : undefined;
  } catch {
    return undefined;
  }
}
function pageUrl() {
  return webUrl(globalThis.location?.href);
}
function placeOptions(options, scriptUrl) {
  const page = pageUrl();
  if (options.wsHost) return page ? { forceTLS: page.protocol === 'https:' } : {};
  const source = webUrl(scriptUrl) ?? page;
  if (!source) throw new Error('Relay: set wsHost to the host of your Relay server; there is no page whose host it could be');
  const hasTls = source.protocol === 'https:';
  const port = Number(source.port) || (hasTls ? 443 : 80);
  return { wsHost: source.hostname, wsPort: port, wssPort: port, forceTLS: hasTls };
}
function relayUrl({ useTLS, wsHost, wsPort, wssPort, wsPath }) {
  return useTLS ? `https://${wsHost}:${wssPort}${wsPath}` : `http://${wsHost}:${wsPort}${wsPath}`;
}
function endpointAddress(endpoint, config) {
  const relay = relayUrl(config);
  if (/^\/(api\/v1\/)?apps\//.test(endpoint)) return { url: relay + endpoint, isRelays: true };
  const page = globalThis.document?.baseURI ?? globalThis.location?.href;
  let url;
  try {
    url = new URL(endpoint, page);
  } catch {
    throw new Error(`Relay: the auth endpoint "${endpoint}" is relative, and there is no page: give its whole URL`);
  }
  const isRoute = /\/apps\/[^/]+\/(user-)?auth$/.test(url.pathname);
  const isRouteOfKey = /\/(broadcasting|pusher)\/(user-)?auth$/.test(url.pathname) && url.searchParams.has('key');
  return { url: url.href, isRelays: (isRoute || isRouteOfKey) && url.origin === new URL(relay).origin };
}
const FETCH_OPTIONS = { cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer' };
function isStreamId(socketId) {
  return typeof socketId === 'string' && socketId.startsWith('0.');
}
function needsWebSocket(what) {
  const text = `${what} needs a WebSocket, which is blocked here: this client reads its channels over HTTP`;
  return Object.assign(new Error(text), { type: 'FallbackError', status: 501 });
}
const RETRIES_MAX = 4;
const RETRY_DELAY_MS_MAX = 30_000;
class AuthFailure extends Error {
  constructor(status, message) {
    super(message);
    this.name = 'AuthFailure';
    this.status = status;
  }
}
function isRefusal(error) {
  return error != null && (error.status === 401 || error.status === 403 || error.status === 419);
}
async function post(address, fields, auth, credentials, isWanted) {
  for (let retries = 0; ; retries += 1) {
    const response = await send(address.url, fields, auth, credentials);
    const isBusy = response.status === 429 || response.status === 503;
    if (!isBusy || !address.isRelays || retries === RETRIES_MAX || !isWanted()) return decode(address.url, response);
    const seconds = Number(response.headers.get('Retry-After')) || 2 ** retries;
    await new Promise((resolve) => setTimeout(resolve, Math.min(seconds * 1000, RETRY_DELAY_MS_MAX)));
  }
}
async function send(url, fields, auth, credentials) {
  const headers = new Headers({ 'Content-Type': 'application/x-www-form-urlencoded', Accept: 'application/json' });
  const given = { ...auth.headers, ...(await auth.headersProvider?.()) };
  for (const [name, value] of Object.entries(given)) {
    if (value != null) headers.set(name, value);
  }
  const parameters = { ...auth.params, ...(await auth.paramsProvider?.()) };
  const body = [...fields, ...Object.entries(parameters)].map((pair) => pair.map(encodeURIComponent).join('=')).join('&');
  try {
    return await fetch(url, { method: 'POST', headers, body, credentials, redirect: 'manual', cache: 'no-store' });
  } catch (error) {
    throw new AuthFailure(0, `No answer from ${shown(url)}: ${error.message}. If it runs on another origin, it must ` +
      `allow this one by CORS${credentials === 'include' ? ', with credentials' : ''}`);
  }
}
async function decode(url, response) {
  const text = await response.text().catch(() => '');
  if (response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)) {
    throw new AuthFailure(response.status, `${shown(url)} redirected the request, perhaps to a login page; an auth ` +
      'endpoint answers it itself');
  }
  const value = parse(text);
  if (response.status !== 200) {
    const reason = typeof value?.message === 'string' ? `: ${value.message}` : '';
    throw new AuthFailure(response.status, `${shown(url)} answered ${response.status}${reason}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AuthFailure(200, `${shown(url)} answered 200 with ${described(text)} in place of a JSON object with ` +
      '"auth"; an endpoint that does not allow a channel answers 403');
  }
  return value;
}
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
function described(text) {
  if (text.trim() === '') return 'an empty body';
  if (/^\s*</.test(text)) return 'an HTML page';
  return `"${text.slice(0, 100)}"`;
}
function shown(url) {
  return url.split('?')[0];
}
function checkChannel(url, name, value) {
  if (value === undefined) throw new AuthFailure(200, `${shown(url)} left ${name} out of its answer`);
  if (typeof value?.status === 'number') {
    const reason = value.message ?? value.error;
    throw new AuthFailure(value.status, `${shown(url)} answered ${value.status} for ${name}${reason ? `: ${reason}` : ''}`);
  }
  checkString(url, name, value, 'auth');
  if (value.channel_data != null) {
    checkString(url, name, value, 'channel_data');
    if (typeof parse(value.channel_data) !== 'object') {
      throw new AuthFailure(200, `${shown(url)} answered for ${name} with a "channel_data" that is not JSON`);
    }
  }
  return value;
}
function checkUser(url, value) {
  checkString(url, 'the user', value, 'auth');
  checkString(url, 'the user', value, 'user_data');
  return value;
}
function checkString(url, subject, value, member) {
  if (typeof value?.[member] === 'string' && value[member] !== '') return;
  throw new AuthFailure(200, `${shown(url)} answered 200 for ${subject} without a string "${member}"`);
}
const BATCH_CHANNELS_MAX = 100;
const CHANNEL_ENDPOINT = '/broadcasting/auth';
const USER_ENDPOINT = '/broadcasting/user-auth';
function channelAuth(options) {
  const old = { ...options.auth, endpoint: options.authEndpoint, transport: options.authTransport };
  const given = options.channelAuthorization ?? old;
  return { ...given, endpoint: String(given.endpoint || CHANNEL_ENDPOINT) };
}
function userAuth(options) {
  const { endpoint, headers, headersProvider, params, paramsProvider } = channelAuth(options);
  const sibling = endpoint.replace(/(\/(apps\/[^/]+|broadcasting|pusher)\/)auth(?=$|\?)/, '$1user-auth');
  const given = { headers, headersProvider, params, paramsProvider, ...options.userAuthentication };
  return { ...given, endpoint: String(given.endpoint || (sibling === endpoint ? USER_ENDPOINT : sibling)) };
}
function authOptions(options, relay) {
  const channel = channelAuth(options);
  const user = userAuth(options);
  const result = {
    channelAuthorization: { customHandler: channelHandler(channel, options, relay) },
    userAuthentication: { customHandler: userHandler(user, options, relay) },
  };
  if (channel.customHandler) {
    result.channelAuthorization = { customHandler: observed(channel.customHandler, relay) };
  } else if (options.authorizer && !options.channelAuthorization) {
    delete result.channelAuthorization;
    result.authorizer = (...given) => {
      const authorizer = options.authorizer(...given);
      return { authorize: observed(authorizer.authorize.bind(authorizer), relay) };
    };
  } else if (channel.transport === 'jsonp') {
    result.channelAuthorization = channel;
  }
  if (user.customHandler) result.userAuthentication = { customHandler: observed(user.customHandler, relay) };
  else if (user.transport === 'jsonp') result.userAuthentication = user;
  return result;
}
function observed(handler, relay) {
  return (parameters, callback) => handler(parameters, (error, data) => {
    callback(error, data);
    endSharingIfRefused(relay(), error);
  });
}
function endSharingIfRefused(relay, error) {
  if (isRefusal(error)) relay.tabs?.goAlone(`the auth endpoint answered ${error.status}`);
}
function fail(relay, emitter, callback, error) {
  if (emitter && error.status !== undefined) {
    const { emit } = emitter;
    const isPatched = Object.prototype.hasOwnProperty.call(emitter, 'emit');
    emitter.emit = (event, data, ...more) => {
      const isFailure = event === 'pusher:subscription_error' || event === 'pusher:signin_error';
      return emit.call(emitter, event, isFailure ? { ...data, ...failureOf(data, error) } : data, ...more);
    };
    try {
      callback(error, null);
    } finally {
      if (isPatched) emitter.emit = emit;
      else delete emitter.emit;
    }
  } else {
    callback(error, null);
  }
  endSharingIfRefused(relay, error);
}
function failureOf(data, { type = data.type, status }) {
  return { type, status };
}
function userHandler(auth, options, relay) {
  return async ({ socketId }, callback) => {
    const isWanted = () => relay().connection.socket_id === socketId;
    if (isStreamId(socketId)) {
      queueMicrotask(() => fail(relay(), relay().user, callback, needsWebSocket('signin()')));
      return;
    }
    let data;
    try {
      const address = endpointAddress(auth.endpoint, relay().config);
      data = checkUser(address.url, await request(address, [['socket_id', socketId]], auth, options, isWanted));
    } catch (error) {
      if (isWanted()) fail(relay(), relay().user, callback, error);
      return;
    }
    if (isWanted()) callback(null, data);
  };
}
function channelHandler(auth, options, relay) {
  const waiting = new Map();
  return ({ socketId, channelName }, callback) => {
    if (isStreamId(socketId) && channelName.startsWith('presence-')) {
      queueMicrotask(() => fail(relay(), relay().channel(channelName), callback, needsWebSocket(channelName)));
      return;
    }
    const list = waiting.get(socketId);
    if (list) {
      list.push({ channelName, callback });
      return;
    }
    waiting.set(socketId, [{ channelName, callback }]);
    queueMicrotask(() => {
      const channels = waiting.get(socketId);
      waiting.delete(socketId);
      authorize(relay(), socketId, channels, auth, options);
    });
  };
}
function authorize(relay, socketId, channels, auth, options) {
  const callbacks = new Map();
  for (const { channelName, callback } of channels) {
    callbacks.set(channelName, [...(callbacks.get(channelName) ?? []), callback]);
  }
  const isWanted = () => relay.connection.socket_id === socketId;
  const finish = (name, outcome) => {
    for (const callback of callbacks.get(name)) {
      if (!isWanted()) return;
      isolated(() => {
        if (outcome instanceof Error) fail(relay, relay.channel(name), callback, outcome);
        else callback(null, { ...outcome });
      });
    }
  };
  const names = [...callbacks.keys()];
  let address;
  try {
    address = endpointAddress(auth.endpoint, relay.config);
  } catch (error) {
    names.forEach((name) => finish(name, error));
    return;
  }
  if (address.isRelays && relay.fallback?.renews(socketId)) return;
  const size = options.authBatch ?? address.isRelays ? BATCH_CHANNELS_MAX : 1;
  for (let start = 0; start < names.length; start += size) {
    const part = names.slice(start, start + size);
    const outcomes = part.length === 1 ? single : batch;
    outcomes(address, socketId, part, auth, options, isWanted).then(
      (values) => part.forEach((name) => finish(name, checked(address, name, values))),
      (error) => part.forEach((name) => finish(name, error)),
    );
  }
}
function isolated(action) {
  try {
    action();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
function checked(address, name, values) {
  try {
    return checkChannel(address.url, name, values.get(name));
  } catch (error) {
    return error;
  }
}
async function single(address, socketId, [name], auth, options, isWanted) {
  const fields = [['socket_id', socketId], ['channel_name', name]];
  return new Map([[name, await request(address, fields, auth, options, isWanted)]]);
}
async function batch(address, socketId, names, auth, options, isWanted) {
  const fields = [['socket_id', socketId], ...names.map((name) => ['channels[]', name])];
  const { channels } = await request(address, fields, auth, options, isWanted);
  if (typeof channels !== 'object' || channels === null) {
    throw new AuthFailure(200, `${address.url} answered "channels[]" without an object "channels": set authBatch: false`);
  }
  return new Map(Object.entries(channels));
}
function request(address, fields, auth, options, isWanted) {
  return post(address, fields, auth, options.authCredentials ?? 'include', isWanted);
}
function given(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value != null));
}
function pusherOptions(options, scriptUrl, relay) {
  const set = given(options);
  delete set.disableStats;
  const place = placeOptions(set, scriptUrl);
  const merged = { enabledTransports: ['ws', 'wss'], ...place, ...set, ...authOptions(set, relay) };
  return { ...merged, cluster: 'relay', enableStats: false, httpHost: merged.httpHost ?? merged.wsHost };
}
function sharingFacts(options, config) {
  const { shareTabs } = options;
  if (!shareTabs) return undefined;
  const channel = channelAuth(options);
  const user = userAuth(options);
  const endpoints = () => [channel, user].map(({ endpoint }) => endpointAddress(endpoint, config).url);
  if (shareTabs !== true) {
    const id = shareTabs.user;
    if ((typeof id === 'string' && id !== '') || Number.isFinite(id)) return async () => [endpoints(), 'user', String(id)];
    console.warn('Relay: shareTabs.user is not a user id, so this tab uses a connection of its own');
    return undefined;
  }
  if (options.authorizer || channel.customHandler || user.customHandler) {
    console.warn('Relay: tabs with authorization handlers of their own share a connection only with shareTabs: {user}');
    return undefined;
  }
  const sent = async ({ headers, headersProvider, params, paramsProvider }) =>
    [headers, await headersProvider?.(), params, await paramsProvider?.()].map((part) => part ?? null);
  return async () => [endpoints(), 'sent', await sent(channel), await sent(user)];
}
class Link {
  constructor(socketId, activityTimeout, way) {
    this.id = socketId;
    this.activityTimeout = activityTimeout;
    this.way = way;
    this.listeners = new Map();
  }
  bind(event, callback) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), callback]);
    return this;
  }
  unbind(event, callback) {
    this.listeners.set(event, (this.listeners.get(event) ?? []).filter((bound) => bound !== callback));
    return this;
  }
  emit(event, value) {
    for (const callback of this.listeners.get(event) ?? []) callback(value);
  }
  end() {
    this.emit('retry', { action: 'retry' });
    this.emit('closed');
  }
  handlesActivityChecks() {
    return false;
  }
  send(text) {
    return this.way.send(text);
  }
  send_event(event, data, channel) {
    return this.send(JSON.stringify(channel ? { event, data, channel } : { event, data }));
  }
  ping() {
    this.way.ping();
  }
  close() {
    this.way.close();
  }
}
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
async function readEvents(body, signal, onBytes, onEvent) {
  const reader = body.getReader();
  const cancel = () => reader.cancel().catch(() => {});
  signal.addEventListener('abort', cancel);
  try {
    await readLines(reader, signal, onBytes, onEvent);
  } finally {
    signal.removeEventListener('abort', cancel);
    cancel();
  }
}
async function readLines(reader, signal, onBytes, onEvent) {
  const decoder = new TextDecoder();
  let rest = '';
  let fields = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done || signal.aborted) return;
    onBytes();
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line !== '') {
        const [, name, text] = /^(\w*):? ?(.*)$/.exec(line) ?? [];
        if (name) fields[name] = text;
        continue;
      }
      const { event = 'message', id, data } = fields;
      fields = {};
      if (data !== undefined) onEvent(event, id, data);
      if (signal.aborted) return;
    }
  }
}
const CHANNELS_MAX = 100;
const URL_BYTES_MAX = 8000;
const CHANGE_DELAY_MS = 10;
const STREAM_SILENCE_MS_MAX = 40_000;
const STALLS_MAX = 2;
const POLL_TIMEOUT_S = 25;
const FIRST_POLL_TIMEOUT_S = 1;
const POLL_MARGIN_MS = 10_000;
const LOSSES_MAX = 4;
const LOSS_DELAY_MS = 500;
const LOSS_DELAY_MS_MAX = 30_000;
const ACTIVITY_TIMEOUT_S = 30;
class StreamSocket {
  constructor(fallback) {
    this.fallback = fallback;
    this.id = fallback.streamId();
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
  ask() {
    const known = [...this.channels].filter(([, { isNew }]) => !isNew).map(([name]) => name);
    const fresh = [...this.channels].filter(([, { isNew }]) => isNew).map(([name]) => name);
    const asked = { names: known, fresh: [] };
    for (const name of fresh) {
      const next = { names: [...asked.names, name], fresh: [...asked.fresh, name] };
      if (next.names.length > CHANNELS_MAX || this.url(next, 0).length > URL_BYTES_MAX) {
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
    for (const name of names) {
      const { isNew, after, hasHistory } = this.channels.get(name);
      if (isNew || (this.lastId && !hasHistory)) query += `&after[${enc(name)}]=${isNew ? enc(after) : ''}`;
    }
    if (this.lastId) query += `&last_event_id=${enc(this.lastId)}`;
    return timeout ? this.fallback.url('poll', `${query}&timeout=${timeout}`) : this.fallback.url('sse', query);
  }
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
      for (const name of asked.names) this.succeed(name, positions[name], withEvents.has(name) ? null : positions[name]);
      gaps.forEach((gap) => this.gap(gap));
      for (const { id, ...event } of events) if (this.channels.has(event.channel)) this.emit({ ...event, id });
    } finally {
      timer.end();
    }
  }
  askForRest() {
    const isRest = [...this.channels.values()].some(({ isNew }) => isNew);
    if (isRest) this.change();
    else this.isOneByOne = false;
  }
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
const TRANSPORTS = ['sse', 'poll'];
const TIMEOUT_MS = 5000;
const RETRY_INTERVAL_MS = 60_000;
const RETRY_INTERVAL_MS_MAX = 300_000;
const CHECK_INTERVAL_TIMEOUTS = 3;
const FRESH_CHECK_MS = 2000;
const FAILURES_MIN = 2;
const SHORT_LIVES_MIN = 3;
const SHORT_LIFE_MS = 10_000;
const SIGNED_ID_MS_MAX = 540_000;
const WRAPPED = Symbol.for('@relay/client/fallback');
const RESUMING = Symbol.for('@relay/client/resume');
function fallbackOptions(option) {
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
class Fallback {
  constructor(relay, Runtime, options) {
    this.relay = relay;
    this.Runtime = Runtime;
    this.options = options;
    this.mode = null;
    this.wasUsed = false;
    this.failures = 0;
    this.shortLives = 0;
    this.clockOffsetMs = 0;
    wrapTransport(Runtime);
  }
  marked(options) {
    return { ...options, relayFallback: () => this };
  }
  transport() {
    if (this.socket) return this.mode ?? undefined;
    return this.relay.connection.connection ? 'websocket' : undefined;
  }
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
  createSocket(open, url, useTLS) {
    const isMain = Boolean(useTLS) === Boolean(this.relay.connection.usingTLS);
    if (!this.mode) {
      const socket = this.wasUsed ? this.openResuming(open, url) : open(url);
      if (isMain) this.watch(socket, this.attempt);
      return socket;
    }
    if (!isMain) throw new Error('Relay: WebSockets are blocked');
    this.retryWith = () => open(url);
    const socket = new StreamSocket(this);
    this.socket = socket;
    if (!url.includes('event_ids=')) this.makeResuming(socket, url);
    return socket;
  }
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
  listeners(url) {
    return [...(this.Runtime[RESUMING] ?? [])].filter((listener) => listener.covers(url));
  }
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
  use(mode) {
    this.mode = mode;
    this.wasUsed = true;
    this.retries = 0;
  }
  reset() {
    this.mode = null;
    this.endProbe?.();
    clearTimeout(this.retryTimer);
    this.failures = 0;
    this.shortLives = 0;
  }
  stop() {
    this.attempt?.end();
    this.socket = null;
    this.reset();
  }
  url(path, query = '') {
    const { config, key, connection } = this.relay;
    const base = relayUrl({ ...config, useTLS: connection.usingTLS });
    return `${base}/app/${encodeURIComponent(key)}/${path}?key=${encodeURIComponent(key)}${query}`;
  }
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
  streamId() {
    this.idAt = Date.now();
    const seconds = Math.floor((this.idAt + this.clockOffsetMs) / 1000);
    return `0.${seconds}${String(Math.floor(Math.random() * 1e9)).padStart(9, '0')}`;
  }
  renews(socketId) {
    const { socket } = this;
    if (!isStreamId(socketId) || socket?.id !== socketId || Date.now() - this.idAt < SIGNED_ID_MS_MAX) return false;
    socket.end(1000);
    return true;
  }
  opened() {
    this.scheduleRetry();
  }
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
  scheduleRetry() {
    clearTimeout(this.retryTimer);
    const { retryInterval } = this.options;
    const limit = Math.max(retryInterval, RETRY_INTERVAL_MS_MAX);
    this.retryTimer = setTimeout(() => this.probe(), jittered(Math.min(retryInterval * 2 ** this.retries, limit)));
  }
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
function jittered(ms) {
  return ms * (0.8 + Math.random() * 0.4);
}
class Attempt {
  constructor(fallback, own, minPriority, callback) {
    Object.assign(this, { fallback, own, minPriority, callback });
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
  const { getDefaultStrategy } = Runtime;
  Runtime.getDefaultStrategy = (config, options, defineTransport) =>
    getDefaultStrategy.call(Runtime, config, options, (...given) => {
      const [, , type, , , manager] = given;
      if (options?.relayFallback && type === 'ws' && manager) manager.livesLeft = Infinity;
      return defineTransport(...given);
    });
}
function canShare() {
  const { navigator, BroadcastChannel, crypto } = globalThis;
  return Boolean(navigator?.locks?.request && BroadcastChannel && crypto?.subtle && crypto.randomUUID);
}
async function groupName(facts) {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(facts)));
  return `relay.${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
class Membership {
  constructor(name, on) {
    this.id = crypto.randomUUID();
    this.leads = false;
    this.hasLeft = false;
    this.pending = new AbortController();
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
    this.lines = new Map();
    this.serve = on.serve;
    this.observed = new Set();
    this.entered = name.then((resolved) => this.enter(resolved, on));
  }
  async enter(name, on) {
    if (this.hasLeft) return;
    this.name = name;
    this.lobby = new BroadcastChannel(name);
    this.lobby.onmessage = ({ data }) => on.hear(data);
    this.line = new BroadcastChannel(`${name}.${this.id}`);
    this.line.onmessage = ({ data }) => on.receive(data);
    await new Promise((resolve, reject) => {
      this.hold(`${name}.${this.id}`, resolve).catch(reject);
    });
    this.hold(name, () => {
      this.leads = true;
      on.lead();
    }).catch(() => {});
  }
  hold(name, taken) {
    return navigator.locks.request(name, { signal: this.pending.signal }, () => {
      if (this.hasLeft) return undefined;
      taken();
      return this.ended;
    });
  }
  whenGone(id, callback) {
    if (this.observed.has(id)) return;
    this.observed.add(id);
    const options = { mode: 'shared', signal: this.pending.signal };
    const gone = () => {
      this.observed.delete(id);
      this.lines.get(id)?.close();
      this.lines.delete(id);
      callback();
    };
    navigator.locks.request(`${this.name}.${id}`, options, gone).catch(() => {});
  }
  announce(message) {
    this.lobby?.postMessage({ ...message, from: this.id });
  }
  tell(message) {
    if (!this.hasLeft) this.line.postMessage(message);
  }
  post(id, message) {
    if (this.hasLeft) return;
    let line = this.lines.get(id);
    if (!line) {
      line = new BroadcastChannel(`${this.name}.${id}`);
      line.onmessage = ({ data }) => this.serve(id, data);
      this.lines.set(id, line);
    }
    line.postMessage({ ...message, from: this.id });
  }
  leave() {
    this.hasLeft = true;
    this.leads = false;
    this.pending.abort();
    this.end();
    this.lobby?.close();
    this.line?.close();
    this.lines.forEach((line) => line.close());
  }
}
const SUCCEEDED = 'pusher_internal:subscription_succeeded';
const COUNT = 'pusher_internal:subscription_count';
class SharedChannel {
  constructor(name, auth, channelData) {
    this.name = name;
    this.auth = auth ?? '';
    this.channelData = channelData ?? '';
    this.tabs = new Set();
    this.isSubscribed = false;
    this.members = new Map();
    this.isCached = /^(private-|presence-|private-encrypted-)?cache-/.test(name);
  }
  accepts(auth, channelData) {
    return this.auth === (auth ?? '') && this.channelData === (channelData ?? '');
  }
  userId() {
    try {
      return String(JSON.parse(this.channelData).user_id);
    } catch {
      return undefined;
    }
  }
  note({ event, data, channel }) {
    if (event === SUCCEEDED) {
      this.isSubscribed = true;
      this.succeeded = JSON.stringify(data ?? {});
      this.members = new Map(Object.entries(data?.presence?.hash ?? {}));
    } else if (event === 'pusher_internal:member_added') {
      this.members.set(String(data.user_id), data.user_info);
    } else if (event === 'pusher_internal:member_removed') {
      this.members.delete(String(data.user_id));
    } else if (event === COUNT) {
      this.count = JSON.stringify(data);
    } else if (this.isCached && !event.startsWith('client-') && !event.startsWith('pusher_internal:')) {
      this.last = JSON.stringify({ event, data, channel });
    }
  }
  welcome() {
    const messages = [{ event: SUCCEEDED, channel: this.name, data: this.succeededData() }];
    if (this.last) messages.push(JSON.parse(this.last));
    if (this.count) messages.push({ event: COUNT, channel: this.name, data: JSON.parse(this.count) });
    return messages;
  }
  succeededData() {
    const data = JSON.parse(this.succeeded);
    if (data.presence) {
      data.presence = {
        ids: [...this.members.keys()],
        hash: Object.fromEntries(this.members),
        count: this.members.size,
      };
    }
    return data;
  }
}
const FORWARDED = ['tls_only', 'refused', 'backoff', 'retry'];
class Hub {
  constructor(connection, local, onEnd) {
    this.connection = connection;
    this.local = local;
    this.onEnd = onEnd;
    this.ports = new Map([[local.id, local]]);
    this.channels = new Map();
    this.signin = null;
    this.watched = new Map();
    this.listeners = {
      message: (message) => this.route(message),
      ping: () => connection.send_event('pusher:pong', {}),
      activity: () => local.emit('activity'),
      error: (error) => this.deliver(this.concerned(error), 'error', error),
      closed: () => {
        this.unbind();
        this.finish([['closed']]);
      },
    };
    for (const event of FORWARDED) this.listeners[event] = (value) => this.deliver(this.ports.values(), event, value);
    for (const [event, listener] of Object.entries(this.listeners)) connection.bind(event, listener);
  }
  unbind() {
    for (const [event, listener] of Object.entries(this.listeners)) this.connection.unbind(event, listener);
  }
  close() {
    if (this.isOver) return;
    this.unbind();
    this.connection.close();
    this.ports.delete(this.local.id);
    this.finish([['retry', { action: 'retry' }], ['closed']]);
  }
  finish(events) {
    this.isOver = true;
    const ports = [...this.ports.values()];
    this.ports.clear();
    this.onEnd();
    for (const port of ports) events.forEach(([event, value]) => port.emit(event, value));
  }
  deliver(ports, event, value) {
    const all = [...ports];
    for (const port of all) if (port !== this.local) port.emit(event, value);
    if (all.includes(this.local)) this.local.emit(event, value);
  }
  admit(port) {
    this.ports.set(port.id, port);
  }
  remove(id) {
    const port = this.ports.get(id);
    if (!port) return;
    this.ports.delete(id);
    this.signin?.ports.delete(port);
    for (const channel of [...this.channels.values()]) this.leaveChannel(channel, port);
  }
  receive(id, text) {
    const port = this.ports.get(id);
    if (!port) return;
    const { event, data, channel } = JSON.parse(text);
    if (event === 'pusher:subscribe') this.subscribe(port, data, text);
    else if (event === 'pusher:unsubscribe') this.unsubscribe(port, data.channel);
    else if (event === 'pusher:signin') this.signIn(port, data, text);
    else if (event.startsWith('client-')) this.sendClientEvent(port, event, data, channel, text);
    else if (event === 'pusher:ping') port.emit('message', { event: 'pusher:pong', data: {} });
    else if (event !== 'pusher:pong') this.connection.send(text);
  }
  subscribe(port, { channel: name, auth, channel_data: channelData }, text) {
    if (name.startsWith('#server-to-user-') && !this.isUserChannelOf(port, name)) {
      this.expel(port, `${name} is for another user`);
      return;
    }
    let channel = this.channels.get(name);
    if (!channel) {
      channel = new SharedChannel(name, auth, channelData);
      this.channels.set(name, channel);
      this.connection.send(text);
    } else if (!channel.accepts(auth, channelData)) {
      this.expel(port, `its authorization for ${name} is not that of the other tabs`);
      return;
    } else if (channel.isSubscribed) {
      this.later(() => channel.tabs.has(port) && channel.welcome().forEach((message) => port.emit('message', message)));
    }
    channel.tabs.add(port);
  }
  unsubscribe(port, name) {
    const channel = this.channels.get(name);
    if (channel) this.leaveChannel(channel, port);
  }
  leaveChannel(channel, port) {
    channel.tabs.delete(port);
    this.leaveIfUnused(channel);
  }
  leaveIfUnused(channel) {
    const isKnown = this.channels.get(channel.name) === channel;
    if (this.isOver || !isKnown || !channel.isSubscribed || channel.tabs.size > 0) return;
    this.channels.delete(channel.name);
    this.connection.send_event('pusher:unsubscribe', { channel: channel.name });
  }
  signIn(port, { auth, user_data: userData }, text) {
    if (!this.signin) {
      this.signin = { auth, userData, ports: new Set([port]), success: null };
      this.connection.send(text);
      return;
    }
    const { signin } = this;
    if (signin.auth !== auth || signin.userData !== userData) {
      this.expel(port, 'another user, or other data of the user, is signed in');
      return;
    }
    signin.ports.add(port);
    if (!signin.success) return;
    this.later(() => {
      if (!signin.ports.has(port)) return;
      port.emit('message', JSON.parse(signin.success));
      const events = this.watchlist();
      if (events.length > 0) port.emit('message', { event: 'pusher_internal:watchlist_events', data: { events } });
    });
  }
  isUserChannelOf(port, name) {
    if (!this.signin?.success || !this.signin.ports.has(port)) return false;
    return name === `#server-to-user-${JSON.parse(JSON.parse(this.signin.success).data.user_data).id}`;
  }
  watchlist() {
    const ids = { online: [], offline: [] };
    for (const [id, state] of this.watched) ids[state]?.push(id);
    return Object.entries(ids).filter(([, list]) => list.length > 0).map(([name, list]) => ({ name, user_ids: list }));
  }
  sendClientEvent(port, event, data, name, text) {
    const channel = this.channels.get(name);
    if (!channel?.isSubscribed || !channel.tabs.has(port)) return;
    this.connection.send(text);
    const message = { event, channel: name, data: decoded(data) };
    const userId = name.startsWith('presence-') ? channel.userId() ?? this.userId() : undefined;
    if (userId !== undefined) message.user_id = userId;
    for (const other of channel.tabs) {
      if (other !== port) this.later(() => channel.tabs.has(other) && other.emit('message', message));
    }
  }
  userId() {
    return this.signin?.success && JSON.parse(JSON.parse(this.signin.success).data.user_data).id;
  }
  route(message) {
    const { event, channel: name } = message;
    if (name !== undefined) {
      const channel = this.channels.get(name);
      if (channel) this.routeToChannel(channel, message);
    } else if (event === 'pusher:signin_success') {
      if (!this.signin) return;
      this.signin.success = JSON.stringify(message);
      this.deliver(this.signin.ports, 'message', message);
    } else if (event === 'pusher_internal:watchlist_events') {
      for (const { name: state, user_ids: ids } of message.data?.events ?? []) {
        ids?.forEach((id) => this.watched.set(id, state));
      }
      this.deliver(this.signin?.ports ?? [], 'message', message);
    } else if (event === 'pusher:error') {
      this.deliver(this.concerned(message), 'message', message);
    } else if (event === 'pusher:pong') {
      this.local.emit('message', message);
    } else if (event !== 'pusher:ping') {
      this.deliver(this.ports.values(), 'message', message);
    }
    this.local.emit('activity');
  }
  routeToChannel(channel, message) {
    channel.note(message);
    if (message.event === 'pusher:subscription_error') this.channels.delete(channel.name);
    this.deliver(channel.tabs, 'message', message);
    this.leaveIfUnused(channel);
  }
  concerned({ data }) {
    const text = String(data?.message ?? '');
    const isQuoted = ({ name }) => /^(private|presence)-/.test(name) && text.includes(name);
    const quoted = [...this.channels.values()].filter(isQuoted);
    const [channel] = quoted.sort((one, other) => other.name.length - one.name.length);
    return channel ? channel.tabs : this.ports.values();
  }
  expel(port, reason) {
    this.remove(port.id);
    port.leave(reason);
  }
  later(action) {
    queueMicrotask(() => {
      if (!this.isOver) action();
    });
  }
}
function decoded(data) {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
const ASK_INTERVAL_MS = 1000;
const SILENCE_MS_MAX = 5000;
class Tabs {
  constructor(nameOf) {
    this.nameOf = nameOf;
    this.isAlone = false;
    this.waiting = new Map();
    this.attempts = 0;
  }
  role() {
    if (this.hub) return 'leader';
    return this.link ? 'follower' : 'none';
  }
  strategy(own) {
    return {
      isSupported: () => own.isSupported(),
      connect: (minPriority, callback) => this.connect(own, minPriority, callback),
    };
  }
  connect(own, minPriority, callback) {
    if (this.isAlone) return own.connect(minPriority, callback);
    this.attempts += 1;
    const attempt = { number: this.attempts, own, minPriority, callback };
    this.attempt = attempt;
    this.enter().then(
      () => this.attempt === attempt && this.proceed(),
      (error) => this.attempt === attempt && this.goAlone(`it cannot join the other tabs: ${error.message}`),
    );
    return {
      abort: () => {
        attempt.runner?.abort();
        if (this.attempt === attempt) this.endAttempt();
      },
      forceMinPriority: (priority) => attempt.runner?.forceMinPriority(priority),
    };
  }
  endAttempt() {
    this.stopAsking();
    const { attempt } = this;
    this.attempt = null;
    return attempt;
  }
  enter() {
    this.membership ??= new Membership(this.nameOf(), {
      lead: () => this.lead(),
      hear: (message) => this.hear(message),
      receive: (message) => this.receive(message),
      serve: (id, { kind, text }) => {
        if (kind === 'send') this.hub?.receive(id, text);
        else if (kind === 'close') this.hub?.remove(id);
      },
    });
    return this.membership.entered;
  }
  leave() {
    this.stopAsking();
    this.watchVisibility(false);
    this.waiting.clear();
    const { hub, membership } = this;
    this.membership = null;
    this.link = null;
    hub?.close();
    membership?.leave();
  }
  goAlone(reason) {
    if (this.isAlone) return;
    console.warn(`Relay: this tab uses a connection of its own, because ${reason}`);
    const { link, localLink } = this;
    this.isAlone = true;
    this.leave();
    (link ?? localLink)?.end();
    if (this.attempt) this.connectItself();
  }
  connectItself() {
    const attempt = this.endAttempt();
    attempt.runner = attempt.own.connect(attempt.minPriority, attempt.callback);
  }
  proceed() {
    if (this.membership?.leads) this.connectForAll();
    else if (this.membership) this.ask();
  }
  lead() {
    this.membership.announce({ kind: 'leading' });
    const { link } = this;
    this.link = null;
    link?.end();
    if (this.attempt) this.connectForAll();
  }
  connectForAll() {
    const attempt = this.endAttempt();
    attempt.runner = attempt.own.connect(attempt.minPriority, (error, handshake) => {
      if (handshake?.action !== 'connected' || !this.membership?.leads) {
        attempt.callback(error, handshake);
        return;
      }
      attempt.callback(error, { ...handshake, connection: this.share(handshake) });
      for (const [id, number] of [...this.waiting]) if (this.hub) this.admit(id, number);
    });
  }
  share({ connection, activityTimeout }) {
    const { membership } = this;
    const { id } = membership;
    const link = new Link(connection.id, connection.activityTimeout, {
      send: (text) => {
        hub.receive(id, text);
        return !hub.isOver;
      },
      ping: () => connection.ping(),
      close: () => hub.close(),
    });
    const local = { id, emit: (event, value) => link.emit(event, value), leave: (reason) => this.goAlone(reason) };
    const hub = new Hub(connection, local, () => {
      if (this.hub === hub) this.hub = null;
    });
    this.hub = hub;
    this.localLink = link;
    this.activityTimeout = activityTimeout;
    return link;
  }
  admit(id, number) {
    const { membership } = this;
    this.waiting.delete(id);
    if (this.hub.ports.get(id)?.number !== number) {
      this.hub.remove(id);
      this.hub.admit({
        id,
        number,
        emit: (event, value) => membership.post(id, { kind: 'emit', event, value: value && plain(value) }),
        leave: (reason) => membership.post(id, { kind: 'leave', reason }),
      });
    }
    const { id: socketId, activityTimeout: connectionTimeout } = this.localLink;
    const { activityTimeout } = this;
    membership.post(id, { kind: 'connected', number, socketId, connectionTimeout, activityTimeout });
  }
  hear({ kind, from, number }) {
    if (kind === 'leading') {
      const { link } = this;
      this.link = null;
      link?.end();
      if (this.isAsking) this.announceAttempt();
    } else if (kind === 'asking' && this.membership?.leads) {
      this.answer(from, number);
    }
  }
  answer(id, number) {
    const { membership } = this;
    membership.whenGone(id, () => {
      this.waiting.delete(id);
      this.hub?.remove(id);
    });
    if (this.hub) {
      this.admit(id, number);
    } else {
      this.waiting.set(id, number);
      membership.post(id, { kind: 'wait' });
    }
  }
  ask() {
    this.heardAt = Date.now();
    this.isAsking = true;
    this.announceAttempt();
    this.asking = setInterval(() => {
      if (Date.now() - this.heardAt > SILENCE_MS_MAX) this.leaveForNow();
      else this.announceAttempt();
    }, ASK_INTERVAL_MS);
  }
  announceAttempt() {
    this.membership.announce({ kind: 'asking', number: this.attempt.number });
  }
  stopAsking() {
    clearInterval(this.asking);
    this.isAsking = false;
  }
  leaveForNow() {
    this.leave();
    this.connectItself();
  }
  receive(message) {
    const { kind, from } = message;
    this.heardAt = Date.now();
    if (kind === 'connected' && this.isAsking && message.number === this.attempt.number) this.follow(message);
    else if (kind === 'leave' && from === this.leader) this.goAlone(message.reason);
    else if (kind === 'emit' && from === this.leader) this.link?.emit(message.event, message.value);
  }
  follow({ from, socketId, connectionTimeout, activityTimeout }) {
    const { membership } = this;
    this.leader = from;
    const send = (text) => {
      membership.tell({ kind: 'send', text });
      return true;
    };
    const link = new Link(socketId, connectionTimeout, {
      send,
      ping: () => send('{"event":"pusher:ping","data":{}}'),
      close: () => {
        membership.tell({ kind: 'close' });
        if (this.link === link) this.link = null;
      },
    });
    link.bind('closed', () => {
      if (this.link === link) this.link = null;
    });
    this.link = link;
    this.watchVisibility(true);
    this.endAttempt().callback(null, { action: 'connected', connection: link, activityTimeout });
  }
  watchVisibility(isWatched) {
    const { document } = globalThis;
    if (!document) return;
    document.removeEventListener('visibilitychange', this.check);
    if (!isWatched) return;
    this.check = () => {
      const { link } = this;
      if (document.visibilityState !== 'visible' || !link) return;
      const askedAt = Date.now();
      link.ping();
      setTimeout(() => {
        if (this.link === link && this.heardAt < askedAt) link.end();
      }, SILENCE_MS_MAX);
    };
    document.addEventListener('visibilitychange', this.check);
  }
}
function plain(value) {
  return JSON.parse(JSON.stringify(value));
}
const SHARING_VERSION = 1;
function defineRelay(Pusher, scriptUrl) {
  class Relay extends Pusher {
    constructor(key, options = {}) {
      let self;
      const fallback = fallbackOptions(options.fallback);
      super(key, pusherOptions(options, scriptUrl, () => self));
      self = this;
      const facts = canShare() ? sharingFacts(options, this.config) : undefined;
      if (fallback) this.allowFallback(fallback);
      if (facts) this.shareConnection(facts);
      this.isPrepared = true;
      if (Pusher.isReady) this.connect();
    }
    get sharing() {
      return this.tabs?.role() ?? 'none';
    }
    get transport() {
      if (this.tabs?.role() === 'follower') return undefined;
      return this.fallback ? this.fallback.transport() : this.connection.connection ? 'websocket' : undefined;
    }
    connect() {
      if (this.isPrepared) super.connect();
    }
    send_event(name, data, channel) {
      const { connection } = this;
      if (!name.startsWith('client-') || connection.state !== 'connected' || !isStreamId(connection.socket_id)) {
        return super.send_event(name, data, channel);
      }
      const { message } = needsWebSocket(`The client event ${name}`);
      connection.emit('error', { type: 'PusherError', data: { code: 4301, message } });
      return false;
    }
    switchCluster(options) {
      this.tabs?.leave();
      super.switchCluster(options);
    }
    allowFallback(options) {
      const { connection } = this;
      const { getStrategy } = connection.options;
      const { Runtime } = Pusher;
      if (typeof getStrategy !== 'function' || typeof Runtime.Transports?.ws?.hooks?.getSocket !== 'function') {
        console.warn('Relay: this version of pusher-js lets no client fall back from WebSockets');
        return;
      }
      const fallback = new Fallback(this, Runtime, options);
      this.fallback = fallback;
      connection.options.getStrategy = (given) => fallback.strategy(getStrategy(fallback.marked(given)));
      connection.updateStrategy();
      for (const state of ['disconnected', 'failed']) connection.bind(state, () => fallback.stop());
    }
    shareConnection(facts) {
      const { connection } = this;
      const { getStrategy } = connection.options;
      if (typeof getStrategy !== 'function' || typeof connection.updateStrategy !== 'function') {
        console.warn('Relay: this version of pusher-js does not let tabs share a connection');
        return;
      }
      const { useTLS, wsHost, wsPort, wssPort, wsPath } = this.config;
      const place = [useTLS, wsHost, useTLS ? wssPort : wsPort, wsPath];
      this.tabs = new Tabs(async () => groupName([SHARING_VERSION, this.key, place, await facts()]));
      connection.options.getStrategy = (options) => this.tabs.strategy(getStrategy(options));
      connection.updateStrategy();
      for (const state of ['disconnected', 'failed']) connection.bind(state, () => this.tabs.leave());
    }
  }
  return Relay;
}
globalThis.Relay = defineRelay(globalThis.Pusher, scriptUrl);
})();
