// `@relay/client/resume` for one version of pusher-js on Node: what an application gets across lost connections.
// R-CLIENT-9 to R-CLIENT-11.
//
// Argument: the package of pusher-js. Prints `restart` when the server is to be restarted.

import assert from 'node:assert/strict';
import Echo from 'laravel-echo';
import { resume } from '@relay/client/resume';
import { isRepeat } from './node_modules/@relay/client/src/event_id.js';
import { proxy } from './proxy.mjs';
import { api, eventually, key, main, once, signed, signedUser } from './rig.mjs';

const [packageName] = process.argv.slice(2);
const { default: Pusher } = await import(packageName);

/** Where connections resume; the same host under another name is another host. */
const HOST = '127.0.0.1';
const OTHER_HOST = '127.0.0.2';

const resuming = resume(Pusher, { hosts: [HOST] });
const reported = [];
for (const event of ['gap', 'resumed']) resuming.on(event, (details) => reported.push({ event, ...details }));
const reports = (pusher, event) => reported.filter((report) => report.pusher === pusher && report.event === event);

main(async () => {
  const scenarios = [
    options, order, exactly, neighbours, disconnecting, lateFrames, unsubscribing, sleeping, expiry, large, objects,
    repeats, bytes, users, refusals, echo, otherHosts, restart,
  ];
  for (const scenario of scenarios) {
    await scenario();
    Pusher.instances.forEach((pusher) => pusher.disconnect());
  }
});

/** A client that authorizes itself. */
function client(through, more = {}) {
  const user = { id: '7', user_info: {} };
  return new Pusher(key, {
    ...through.place,
    enabledTransports: ['ws', 'wss'],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, callback) =>
        callback(null, signed(socketId, channelName, { user_id: '7' })),
    },
    userAuthentication: { customHandler: ({ socketId }, callback) => callback(null, signedUser(socketId, user)) },
    ...more,
  });
}

/** Subscribes; the result records the numbers of the events, and what else the channel emits. */
async function join(pusher, name) {
  const channel = pusher.subscribe(name);
  const joined = { channel, numbers: [], emitted: [] };
  channel.bind_global((event, data) => {
    if (event === 'n') joined.numbers.push(data.number);
    else joined.emitted.push([event, data]);
  });
  await once(channel, 'pusher:subscription_succeeded');
  return joined;
}

const emittedOf = ({ emitted }, event) => emitted.filter(([name]) => name === event).map(([, data]) => data);

let number = 0;

/** Publishes an event with the next number; returns it. */
async function next(...channels) {
  number += 1;
  await api('POST', '/events', { name: 'n', channels, data: JSON.stringify({ number }) });
  return number;
}

const arrived = (joined, wanted) => eventually(`event ${wanted}`, () => joined.numbers.includes(wanted));
const reconnected = ({ connection }) => once(connection, 'connected');

/** Hosts are required, and nothing but a class of pusher-js is accepted. */
async function options() {
  assert.throws(() => resume(Pusher), /needs the hosts/);
  assert.throws(() => resume(Pusher, { hosts: [] }), /needs the hosts/);
  for (const host of ['https://relay.example.com', 'relay.example.com/path', 'a b', 'h:port', '']) {
    assert.throws(() => resume(Pusher, { hosts: [host] }), new RegExp(`"${host}" in hosts is neither`), host);
  }
  for (const value of [undefined, null, {}, class {}]) {
    assert.throws(() => resume(value, { hosts: [HOST] }), /needs the class that pusher-js exports/);
  }
  assert.throws(() => resuming.on('message', () => {}), /there is no event "message"/);
}

/** Sequences are compared as numbers, and only within one epoch and group; the reference reads the bytes. */
async function order() {
  const idOf = (epoch, group, sequence) => {
    const bytes = Buffer.alloc(18);
    bytes.writeBigUInt64BE(epoch);
    bytes.writeUInt16BE(group, 8);
    bytes.writeBigUInt64BE(sequence, 10);
    return `evt_${bytes.toString('base64url')}`;
  };
  const all = 2n ** 64n - 1n;
  const edges = [0n, 1n, 2n, 63n, 64n, 65n, 255n, 256n, 2n ** 60n - 1n, 2n ** 60n, 2n ** 63n, all - 1n, all];
  for (const one of edges) {
    for (const other of edges) {
      assert.equal(isRepeat(idOf(all, 255, one), idOf(all, 255, other)), one <= other, `${one} ${other}`);
      assert.equal(isRepeat(idOf(1n, 255, one), idOf(1n, 254, other)), false, 'another group');
      assert.equal(isRepeat(idOf(1n, 255, one), idOf(0n, 255, other)), false, 'another epoch');
    }
  }
  assert.equal(isRepeat('evt_new-form', 'evt_new-form'), true);
  assert.equal(isRepeat('evt_new-form', idOf(1n, 1, 1n)), false);
}

/** Several kinds of channels through cuts: the missed events, each once and in order, and an announcement of it. */
async function exactly() {
  const through = await proxy();
  const pusher = client(through);
  const names = ['news', 'private-orders', 'presence-room', 'cache-news'];
  const all = await Promise.all(names.map((name) => join(pusher, name)));
  const wanted = [];
  for (let round = 0; round < 3; round += 1) {
    wanted.push(await next(...names));
    for (const joined of all) await arrived(joined, wanted.at(-1));
    const back = all.map(({ channel }) => once(channel, 'pusher:history_resumed'));
    through.cut();
    // In the second round nothing is missed.
    for (let missed = 0; missed < 2 && round !== 1; missed += 1) wanted.push(await next(...names));
    for (const { after } of await Promise.all(back)) assert.match(after, /^evt_[\w-]{24}$/);
    assert.equal(all[2].channel.members.count, 1);
  }
  wanted.push(await next(...names));
  for (const joined of all) {
    await arrived(joined, wanted.at(-1));
    assert.deepEqual(joined.numbers, wanted, joined.channel.name);
    assert.equal(emittedOf(joined, 'pusher:history_gap').length, 0);
    // It comes after the subscription has succeeded and before the missed events.
    const emitted = joined.emitted.map(([event]) => event).filter((event) => event !== 'pusher:cache_miss');
    const [succeeded, resumed] = ['pusher:subscription_succeeded', 'pusher:history_resumed'];
    assert.deepEqual(emitted, [succeeded, succeeded, resumed, succeeded, resumed, succeeded, resumed]);
  }
  assert.equal(reports(pusher, 'resumed').length, 3 * names.length);
  assert.deepEqual(new Set(reports(pusher, 'resumed').map(({ channel }) => channel)), new Set(names));
  for (const head of through.heads) assert.match(head.split('\r\n')[0], /[?&]event_ids=true /);
  // Client events have no id and are delivered.
  const other = client(through);
  const [orders] = [await join(other, 'private-orders')];
  const heard = once(all[1].channel, 'client-typing');
  orders.channel.trigger('client-typing', { id: 'evt_AAAAAAAAAAAAAAAAAAAAAAAA' });
  assert.deepEqual(await heard, { id: 'evt_AAAAAAAAAAAAAAAAAAAAAAAA' });
}

/**
 * Nothing was missed, but the position is another one, because channels share sequences: the channel is announced as
 * resumed at once, not only when pusher-js pings, which takes 10 s at least.
 */
async function neighbours() {
  const positionOf = async (name) => (await api('GET', `/channels/${name}?info=position`)).position;
  const groupOf = async (name) => Buffer.from((await positionOf(name)).slice(4), 'base64url').readUInt16BE(8);
  const group = await groupOf('quiet');
  let index = 0;
  while (await groupOf(`busy-${index}`) !== group) index += 1;
  const through = await proxy();
  const pusher = client(through);
  const joined = await join(pusher, 'quiet');
  const before = await positionOf('quiet');
  const succeeded = once(joined.channel, 'pusher:subscription_succeeded');
  const resumed = once(joined.channel, 'pusher:history_resumed');
  through.cut();
  await next(`busy-${index}`);
  assert.notEqual(await positionOf('quiet'), before);
  await succeeded;
  const start = Date.now();
  assert.deepEqual(await resumed, { after: before });
  assert.ok(Date.now() - start < 5000, `after ${Date.now() - start} ms`);
  assert.deepEqual([joined.numbers, reports(pusher, 'gap')], [[], []]);
}

/** An application that disconnects and connects gets what it missed, as often as it likes. */
async function disconnecting() {
  const through = await proxy();
  const pusher = client(through);
  const joined = await join(pusher, 'private-paused');
  const wanted = [];
  for (let round = 0; round < 6; round += 1) {
    pusher.disconnect();
    wanted.push(await next('private-paused'));
    const back = reconnected(pusher);
    pusher.connect();
    await back;
    await arrived(joined, wanted.at(-1));
  }
  assert.deepEqual(joined.numbers, wanted);
  // Also by a handler that comes before the missed event.
  const { channel } = joined;
  const disconnect = () => {
    channel.unbind('pusher:history_resumed', disconnect);
    pusher.disconnect();
  };
  channel.bind('pusher:history_resumed', disconnect);
  const gone = once(pusher.connection, 'disconnected');
  through.cut();
  wanted.push(await next('private-paused'));
  await gone;
  pusher.connect();
  await arrived(joined, wanted.at(-1));
  assert.deepEqual(joined.numbers, wanted);
}

/**
 * Frames that arrive after pusher-js closed a socket reach no handler, so they are not counted either. Some
 * implementations of WebSocket still deliver them; here closing takes a while.
 */
async function lateFrames() {
  const { Runtime } = Pusher;
  const { getWebSocketAPI } = Runtime;
  const WebSocket = getWebSocketAPI.call(Runtime);
  let late = 0;
  Runtime.getWebSocketAPI = () => class extends WebSocket {
    close() {
      const count = ({ data }) => {
        late += data.includes('"id":"evt_') ? 1 : 0;
      };
      this.addEventListener('message', count);
      this.finish = () => super.close();
    }
  };
  const through = await proxy();
  const pusher = client(through);
  Runtime.getWebSocketAPI = getWebSocketAPI;
  const joined = await join(pusher, 'late');
  const { socket } = pusher.connection.connection.transport;
  const wanted = [await next('late')];
  await arrived(joined, wanted[0]);
  pusher.disconnect();
  wanted.push(await next('late'), await next('late'));
  await eventually('the old socket gets the events', () => late === 2);
  pusher.connect();
  await arrived(joined, wanted[2]);
  socket.finish();
  assert.deepEqual(joined.numbers, wanted);
}

/** After an unsubscribe, with or without a connection, a channel starts anew. */
async function unsubscribing() {
  const isLeft = (name) => eventually('no subscriber', async () => !(await api('GET', `/channels/${name}`)).occupied);
  const through = await proxy();
  const pusher = client(through);
  for (const away of [
    async (action) => action(),
    async (action) => {
      pusher.disconnect();
      await action();
      const back = reconnected(pusher);
      pusher.connect();
      await back;
    },
  ]) {
    const first = await join(pusher, 'left');
    await arrived(first, await next('left'));
    let second;
    await away(async () => {
      pusher.unsubscribe('left');
      await isLeft('left');
      await next('left');
      second = join(pusher, 'left');
    });
    const joined = await second;
    const wanted = await next('left');
    await arrived(joined, wanted);
    assert.deepEqual(joined.numbers, [wanted]);
    assert.deepEqual([emittedOf(joined, 'pusher:history_gap'), emittedOf(joined, 'pusher:history_resumed')], [[], []]);
    pusher.unsubscribe('left');
  }
  // A handler that leaves the channel gets nothing more from it.
  const leaving = await join(pusher, 'leaving');
  await arrived(leaving, await next('leaving'));
  leaving.channel.bind('pusher:history_resumed', () => pusher.unsubscribe('leaving'));
  through.cut();
  await next('leaving');
  await once(leaving.channel, 'pusher:history_resumed');
  const again = await join(pusher, 'leaving');
  const last = await next('leaving');
  await arrived(again, last);
  assert.deepEqual([leaving.numbers.length, again.numbers], [1, [last]]);
  const quitting = await join(pusher, 'quitting');
  quitting.channel.bind('pusher:subscription_succeeded', () => pusher.unsubscribe('quitting'));
  const back = once(quitting.channel, 'pusher:subscription_succeeded');
  through.cut();
  await back;
  await isLeft('quitting');
  assert.deepEqual(reports(pusher, 'resumed').filter(({ channel }) => channel === 'quitting'), []);
}

/** A connection that says nothing is replaced; what it still delivers later is not delivered twice. */
async function sleeping() {
  const through = await proxy();
  const pusher = client(through, { activityTimeout: 200, pongTimeout: 200 });
  const joined = await join(pusher, 'asleep');
  const wanted = [await next('asleep')];
  await arrived(joined, wanted[0]);
  const back = reconnected(pusher);
  const release = through.hold();
  wanted.push(await next('asleep'), await next('asleep'));
  await back;
  release();
  wanted.push(await next('asleep'));
  await arrived(joined, wanted.at(-1));
  await through.connections(1);
  assert.deepEqual(joined.numbers, wanted);
}

/** More events than are kept: a gap before the rest, once, and exact resume after it. */
async function expiry() {
  const through = await proxy();
  const pusher = client(through);
  const joined = await join(pusher, 'flood');
  const known = await next('flood');
  await arrived(joined, known);
  pusher.disconnect();
  for (let missed = 0; missed < 105; missed += 1) await next('flood');
  let atGap;
  joined.channel.bind('pusher:history_gap', () => {
    atGap = joined.numbers.length;
  });
  pusher.connect();
  await arrived(joined, number);
  const kept = Array.from({ length: 100 }, (_, index) => known + 6 + index);
  assert.deepEqual(joined.numbers, [known, ...kept]);
  assert.equal(atGap, 1, 'the gap comes before the events after it');
  const [gap, ...more] = emittedOf(joined, 'pusher:history_gap');
  assert.equal(more.length, 0);
  assert.equal(gap.reason, 'expired');
  assert.deepEqual(reports(pusher, 'gap'), [{ event: 'gap', pusher, channel: 'flood', ...gap }]);
  assert.equal(reports(pusher, 'resumed').length, 0);

  through.cut();
  const missed = await next('flood');
  await arrived(joined, missed);
  assert.equal(joined.numbers.at(-2), missed - 1);
  assert.equal(reports(pusher, 'gap').length, 1);
  assert.equal(reports(pusher, 'resumed').length, 1);
}

/** Missed events that come in several parts of 64 KiB, over connections that end in the middle of them. */
async function large() {
  const BYTES = 4000;
  let limits = [];
  const through = await proxy({ limit: () => limits.shift() ?? Infinity });
  const pusher = client(through);
  const joined = await join(pusher, 'large');
  const wanted = [await next('large')];
  await arrived(joined, wanted[0]);
  limits = [60_000, 150_000, 200_000];
  through.cut();
  // 320,000 bytes.
  for (let missed = 0; missed < 80; missed += 1) {
    number += 1;
    const data = JSON.stringify({ number, padding: 'x'.repeat(BYTES) });
    await api('POST', '/events', { name: 'n', channels: ['large'], data });
    wanted.push(number);
  }
  await arrived(joined, number);
  assert.deepEqual(joined.numbers, wanted);
  assert.deepEqual([limits, reports(pusher, 'gap')], [[], []]);
}

/** Each Pusher object has its own last ids, also on the same channel. */
async function objects() {
  const [one, other] = [await proxy(), await proxy()];
  const [first, second] = await Promise.all([one, other].map((through) => join(client(through), 'shared')));
  const both = await next('shared');
  await Promise.all([first, second].map((joined) => arrived(joined, both)));
  other.cut();
  const wanted = [both, await next('shared')];
  await arrived(first, wanted[1]);
  one.cut();
  wanted.push(await next('shared'));
  for (const joined of [first, second]) {
    await arrived(joined, wanted.at(-1));
    assert.deepEqual(joined.numbers, wanted);
  }
}

/** A second copy of an event, from whatever is between server and client, is left out. */
async function repeats() {
  const through = await proxy({ doubles: true });
  const pusher = client(through);
  const joined = await join(pusher, 'doubled');
  const wanted = [await next('doubled'), await next('doubled')];
  await arrived(joined, wanted[1]);
  through.cut();
  wanted.push(await next('doubled'), await next('doubled'));
  await arrived(joined, wanted.at(-1));
  wanted.push(await next('doubled'));
  await arrived(joined, wanted.at(-1));
  assert.deepEqual(joined.numbers, wanted);
}

/**
 * Connections that end anywhere after the handshake: between the answer, the announcement and the missed events, and
 * within a frame. Each of several clients loses ten, each after a few bytes more than the one before.
 */
async function bytes() {
  const [HANDSHAKE_BYTES, CLIENTS, ROUNDS, STEP_BYTES] = [260, 8, 10, 9];
  const names = ['cut-1', 'private-cut-2'];
  const clients = await Promise.all(Array.from({ length: CLIENTS }, async (_, index) => {
    let round = 0;
    const limit = () => {
      round += 1;
      return round > ROUNDS ? Infinity : HANDSHAKE_BYTES + ((round - 1) * CLIENTS + index) * STEP_BYTES;
    };
    const through = await proxy({ limit });
    const pusher = client(through);
    return { through, pusher, all: await Promise.all(names.map((name) => join(pusher, name))) };
  }));
  const wanted = [];
  // Fewer events than are kept.
  while (clients.some(({ through }) => through.resets < ROUNDS)) {
    wanted.push(await next(...names));
    assert.ok(wanted.length < 100, 'the connections end in time');
    await new Promise((resolve) => setTimeout(resolve, 400));
  }
  wanted.push(await next(...names));
  for (const { pusher, all } of clients) {
    for (const joined of all) {
      await arrived(joined, wanted.at(-1));
      assert.deepEqual(joined.numbers, wanted, joined.channel.name);
    }
    assert.equal(reports(pusher, 'gap').length, 0);
  }
}

/** Events for the signed-in user, whose channel pusher-js makes anew for each connection. */
async function users() {
  const through = await proxy();
  const pusher = client(through);
  const numbers = [];
  pusher.user.bind('n', (data) => numbers.push(data.number));
  pusher.signin();
  const toUser = () => next('#server-to-user-7');
  const isThere = (wanted) => eventually(`event ${wanted}`, () => numbers.includes(wanted));
  await eventually('the channel of the user', () => pusher.user.serverToUserChannel?.subscribed);
  const wanted = [await toUser()];
  await isThere(wanted[0]);
  through.cut();
  wanted.push(await toUser(), await toUser());
  await isThere(wanted.at(-1));
  assert.deepEqual(numbers, wanted);
  assert.deepEqual(reports(pusher, 'resumed').map(({ channel }) => channel), ['#server-to-user-7']);
}

/** A refused subscription keeps the last id for the next attempt. */
async function refusals() {
  const through = await proxy();
  let isAllowed = true;
  const customHandler = ({ socketId, channelName }, callback) =>
    (isAllowed ? callback(null, signed(socketId, channelName)) : callback(new Error('not now'), null));
  const pusher = client(through, { channelAuthorization: { customHandler } });
  const joined = await join(pusher, 'private-later');
  const wanted = [await next('private-later')];
  await arrived(joined, wanted[0]);
  isAllowed = false;
  const refused = once(joined.channel, 'pusher:subscription_error');
  through.cut();
  await refused;
  wanted.push(await next('private-later'));
  isAllowed = true;
  pusher.subscribe('private-later');
  await arrived(joined, wanted.at(-1));
  assert.deepEqual(joined.numbers, wanted);
}

/** laravel-echo hears events, gaps and resumes as of any channel. */
async function echo() {
  const through = await proxy();
  for (const broadcaster of ['pusher', 'reverb']) {
    const pusher = client(through);
    const over = new Echo({ broadcaster, client: pusher });
    const heard = [];
    const name = `orders.${broadcaster}`;
    const channels = [over.channel(name), over.private(name), over.join(name)];
    for (const channel of channels) {
      const note = (what) => (data) => heard.push([channel.name, what, data.number]);
      channel.listen('.n', note('event')).listen('.pusher:history_resumed', note('resumed'));
    }
    await Promise.all(channels.map(({ subscription }) => once(subscription, 'pusher:subscription_succeeded')));
    const names = [name, `private-${name}`, `presence-${name}`];
    const isThere = (wanted) => eventually(`event ${wanted}`, () =>
      heard.filter(([, , each]) => each === wanted).length === names.length);
    const numbers = [await next(...names)];
    await isThere(numbers[0]);
    through.cut();
    numbers.push(await next(...names), await next(...names));
    await isThere(numbers[2]);
    for (const channel of names) {
      const [first, ...missed] = numbers.map((each) => [channel, 'event', each]);
      const wanted = [first, [channel, 'resumed', undefined], ...missed];
      assert.deepEqual(heard.filter(([each]) => each === channel), wanted);
    }
  }
}

/**
 * Connections to other hosts are left as they are. There a pusher-js before 8.2 fails after two connections on Node,
 * because faye-websocket does not say that a connection was closed cleanly.
 */
async function otherHosts() {
  const through = await proxy({ host: OTHER_HOST });
  const pusher = client(through);
  const joined = await join(pusher, 'elsewhere');
  const missed = await next('elsewhere');
  await arrived(joined, missed);
  assert.doesNotMatch(through.heads.join(), /event_ids/);
  const states = [];
  for (let round = 0; round < 2; round += 1) {
    pusher.disconnect();
    await through.connections(0);
    await next('elsewhere');
    const over = Promise.race([reconnected(pusher), once(pusher.connection, 'failed')]);
    pusher.connect();
    await over;
    states.push(pusher.connection.state);
  }
  const isOld = /-(7\.6|8\.0)$/.test(packageName);
  assert.deepEqual(states, ['connected', isOld ? 'failed' : 'connected']);
  assert.deepEqual([joined.numbers, reports(pusher, 'resumed')], [[missed], []]);
}

/** A restart of the server begins a new history: one gap for each channel, and exact resume after it. */
async function restart() {
  const through = await proxy();
  const pusher = client(through);
  const all = await Promise.all(['news', 'private-orders'].map((name) => join(pusher, name)));
  const known = await next('news', 'private-orders');
  for (const joined of all) await arrived(joined, known);
  const gaps = all.map(({ channel }) => once(channel, 'pusher:history_gap'));
  console.log('restart');
  for (const { reason } of await Promise.all(gaps)) assert.equal(reason, 'epoch');
  // A connection that is lost before any event: the position in the gap takes the place of the id.
  const wanted = [known];
  for (let round = 0; round < 2; round += 1) {
    through.cut();
    wanted.push(await next('news', 'private-orders'));
    for (const joined of all) {
      await arrived(joined, wanted.at(-1));
      assert.deepEqual(joined.numbers, wanted);
    }
  }
  assert.deepEqual([reports(pusher, 'gap').length, reports(pusher, 'resumed').length], [2, 4]);
}
