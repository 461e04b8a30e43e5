// The client behind proxies that block WebSockets, on Node and on Deno: streams, polls, what HTTP cannot do, and the way
// back, without a lost or doubled event. R-CLIENT-13, R-CLIENT-14, R-CLIENT-15, R-CLIENT-16, R-CLIENT-17.

import assert from 'node:assert/strict';
import process from 'node:process';
import Relay from '@relay/client';
import { next, publishing } from './numbers.mjs';
import { kinds, proxy } from './proxy.mjs';
import { api, appId, eventually, key, main, once, relayHost, relayPort, serve, signed, signedUser, within } from './rig.mjs';

const clients = [];

/** Short times, so that a test does not wait; the client uses HTTP for as long as `retryInterval` is long. */
const QUICK = { timeout: 800, retryInterval: 600_000 };

let backend;

/** A client that connects through a proxy; `seen` are the numbers of events on each channel, `states` its states. */
function connect(through, fallback = QUICK, options = {}) {
  const { wsHost, wsPort, forceTLS } = through.place;
  const client = new Relay(key, {
    wsHost,
    wsPort,
    forceTLS,
    enabledTransports: ['ws'],
    fallback,
    authEndpoint: `http://127.0.0.1:${backend.port}/auth`,
    userAuthentication: { endpoint: `http://127.0.0.1:${backend.port}/user-auth` },
    ...options,
  });
  clients.push(client);
  const seen = {};
  const states = [];
  const gaps = [];
  const resumed = [];
  const errors = [];
  client.connection.bind('state_change', ({ current }) => states.push(current));
  client.connection.bind('error', (error) => errors.push(error));
  return Object.assign(client, { seen, states, gaps, resumed, errors });
}

/** Subscribes, records, and waits for the answer. */
async function join(client, name) {
  client.seen[name] ??= [];
  const channel = client.subscribe(name);
  channel.bind('n', ({ number }) => client.seen[name].push(number));
  channel.bind('pusher:history_gap', (gap) => client.gaps.push([name, gap.reason]));
  channel.bind('pusher:history_resumed', () => client.resumed.push(name));
  await once(channel, 'pusher:subscription_succeeded');
  return channel;
}

const arrived = (client, name, wanted) =>
  eventually(`${name}: event ${wanted}, of ${client.seen[name].join()}`, () => client.seen[name].includes(wanted));

const scenarios = {
  /** A client whose WebSocket works sends nothing else, and its handshake is that of a client without this option. */
  async working() {
    const through = await proxy();
    const client = connect(through);
    await join(client, 'news');
    const one = await next('news');
    await arrived(client, 'news', one);
    through.cut();
    await once(client.connection, 'connected');
    await once(client.channel('news'), 'pusher:subscription_succeeded');
    await new Promise((resolve) => setTimeout(resolve, 3 * QUICK.timeout));
    assert.deepEqual(kinds(through), ['ws', 'ws']);
    assert.equal(client.transport, 'websocket');
    const plain = await proxy();
    const other = connect(plain, false);
    await once(other.connection, 'connected');
    const lines = (head) => head.split('\r\n').filter((line) => !/^(Host|Sec-WebSocket-Key):/i.test(line));
    for (const head of through.heads) assert.deepEqual(lines(head), lines(plain.heads[0]));
  },

  /** Each way to block WebSockets leads to a stream, and each way to hold streams to polls. */
  async blocked() {
    for (const upgrades of [400, 403, 407, 'swallow', 'silence', 'mute', 'close']) {
      for (const buffers of [false, true]) {
        const through = await proxy({ upgrades, buffers });
        // pusher-js notices a mute connection by its pings.
        const client = connect(through, QUICK, { activityTimeout: 1000, pongTimeout: 500 });
        const channel = await join(client, 'news');
        assert.equal(client.transport, buffers ? 'poll' : 'sse', `${upgrades}`);
        const connects = client.states.filter((state) => state === 'connected').length;
        // Three WebSockets that begin well, or some more if their ends are noticed late, and then a stream.
        if (['mute', 'close'].includes(upgrades)) assert.ok(connects >= 4 && connects <= 8, client.states.join());
        else assert.equal(connects, 1, `${upgrades}: ${client.states}`);
        assert.match(client.connection.socket_id, /^0\.\d{19}$/);
        const got = once(channel, 'n');
        const one = await next('news');
        assert.deepEqual(await got, { number: one });
        await join(client, 'private-orders');
        const two = await next('news', 'private-orders');
        await arrived(client, 'private-orders', two);
        await arrived(client, 'news', two);
        assert.deepEqual(client.seen, { news: [one, two], 'private-orders': [two] });
        assert.deepEqual(client.gaps, []);
        client.disconnect();
        console.log(`${upgrades}, ${buffers ? 'streams held' : 'streams'}`);
      }
    }
  },

  /** Connections are reset, channels come and go, and the transport changes: by their numbers all events arrive once. */
  async moves() {
    const names = ['news', 'private-a', 'private-b'];
    for (const buffers of [false, true]) {
      const through = await proxy({ upgrades: 403, buffers, doubles: true });
      const client = connect(through, { timeout: 800, retryInterval: 1000 });
      for (const name of names) await join(client, name);
      const numbers = await publishing(names, 5);
      const over = buffers ? 'poll' : 'sse';
      for (let round = 1; round <= 3; round += 1) {
        assert.equal(client.transport, over);
        for (let resets = 0; resets < 3; resets += 1) {
          const before = kinds(through).filter((kind) => kind === over).length;
          through.cut();
          await eventually('another request', () => kinds(through).filter((kind) => kind === over).length > before);
          await arrived(client, 'news', numbers.last);
        }
        await join(client, `other-${round}`);
        client.unsubscribe(`other-${round}`);
        through.upgrades = 'pass';
        await eventually('a WebSocket', () => client.transport === 'websocket');
        await once(client.channel('private-b'), 'pusher:subscription_succeeded');
        await arrived(client, 'private-b', numbers.last);
        through.upgrades = 403;
        through.cut();
        await eventually('HTTP', () => client.transport === over && client.channel('private-b').subscribed);
        console.log(`${over}: round ${round}`);
      }
      await numbers.stop();
      let count;
      for (const name of names) {
        await arrived(client, name, numbers.last);
        count = numbers.check(client.seen[name], `${name} by ${over}`);
      }
      assert.deepEqual(client.gaps, []);
      console.log(`${over}: ${count} events on each of 3 channels, 9 resets, 6 moves: 0 lost, 0 doubled`);
      client.disconnect();
    }
  },

  /** A WebSocket that does not carry messages both ways is no reason to leave HTTP. */
  async stays() {
    for (const upgrades of ['swallow', 'silence', 'mute']) {
      const through = await proxy({ upgrades });
      const client = connect(through, { timeout: 500, retryInterval: 300 }, { activityTimeout: 1000, pongTimeout: 500 });
      await join(client, 'news');
      const { socket_id: id } = client.connection;
      const tried = () => kinds(through).filter((kind) => kind === 'ws').length;
      const before = tried();
      await eventually('two attempts', () => tried() >= before + 2);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      assert.equal(client.connection.socket_id, id, upgrades);
      await arrived(client, 'news', await next('news'));
      client.disconnect();
    }
  },

  /** More events are missed than are kept: the page is told, on the channel that misses them. */
  async gaps() {
    for (const [buffers, pieces, isAway] of [[false, undefined, false], [false, 60, true], [true, undefined, true]]) {
      const through = await proxy({ upgrades: 403, buffers, pieces });
      const client = connect(through, { ...QUICK, timeout: 2000 });
      await join(client, 'busy');
      await join(client, 'quiet');
      const one = await next('busy', 'quiet');
      await arrived(client, 'busy', one);
      await arrived(client, 'quiet', one);
      const { socket_id: id } = client.connection;
      through.isClosed = true;
      through.cut();
      for (let count = 0; count < 1050; count += 1) await next('busy');
      const last = await next('busy', 'quiet');
      // One client opens its stream again; the other one has given up its connection, and its next one resumes.
      if (isAway) await eventually('the connection is lost', () => client.connection.state === 'connecting');
      through.isClosed = false;
      await arrived(client, 'busy', last);
      await arrived(client, 'quiet', last);
      assert.deepEqual(client.gaps, [['busy', 'expired']]);
      assert.deepEqual(client.resumed, client.connection.socket_id === id ? [] : ['quiet']);
      assert.deepEqual(client.seen.quiet, [one, last]);
      assert.deepEqual(client.seen.busy, [one, ...Array.from({ length: 1000 }, (_, at) => last - 999 + at)]);
      client.disconnect();
    }
  },

  /** What HTTP cannot do says so, and works after the return to a WebSocket. */
  async refusals() {
    const through = await proxy({ upgrades: 403 });
    const client = connect(through, { timeout: 800, retryInterval: 2000 });
    const text = (what) => `${what} needs a WebSocket, which is blocked here: this client reads its channels over HTTP`;
    const orders = await join(client, 'private-orders');
    const asked = backend.requests.length;
    const room = client.subscribe('presence-room');
    const error = { type: 'FallbackError', error: text('presence-room'), status: 501 };
    assert.deepEqual(await once(room, 'pusher:subscription_error'), error);
    client.signin();
    assert.deepEqual(await once(client.user, 'pusher:signin_error'), { ...error, error: text('signin()') });
    assert.equal(orders.trigger('client-typed', {}), false);
    const message = text('The client event client-typed');
    assert.deepEqual(client.errors.at(-1), { type: 'PusherError', data: { code: 4301, message } });
    assert.equal(backend.requests.length, asked, 'no auth endpoint was asked in vain');
    const custom = connect(through, QUICK, {
      channelAuthorization: {
        customHandler: ({ socketId, channelName }, callback) => callback(null, signed(socketId, channelName, { user_id: '7' })),
      },
    });
    assert.deepEqual(await once(custom.subscribe('presence-room'), 'pusher:subscription_error'), error);
    custom.disconnect();

    // A channel that the server refuses does not take others with it.
    const refusing = connect(through, QUICK, {
      channelAuthorization: {
        customHandler: ({ socketId, channelName }, callback) =>
          callback(null, channelName === 'private-bad' ? { auth: `${key}:${'0'.repeat(64)}` } : signed(socketId, channelName)),
      },
    });
    const good = ['private-one', 'news', 'private-two'].map((name) => join(refusing, name));
    const bad = once(refusing.subscribe('private-bad'), 'pusher:subscription_error');
    const { status, type, error: reason } = await bad;
    assert.deepEqual([status, type], [401, 'AuthError']);
    assert.match(reason, /^auth\[private-bad\]: /);
    await Promise.all(good);
    await arrived(refusing, 'private-two', await next('private-two'));
    refusing.disconnect();

    // All of it works on the WebSocket that follows.
    through.upgrades = 'pass';
    await once(room, 'pusher:subscription_succeeded');
    assert.equal(client.transport, 'websocket');
    assert.equal(room.members.me.id, '7');
    await client.user.signinDonePromise;
    await eventually('the user', () => client.user.user_data?.id === '7');
    await eventually('a client event', () => orders.subscribed && orders.trigger('client-typed', {}));
    assert.deepEqual(client.errors.map(({ data }) => data.code), [4301], 'the return is no error');
  },

  /** A request has room for 100 channels and 8 KiB; the others learn that, and channels in more than one request. */
  async bounds() {
    const through = await proxy({ upgrades: 403 });
    const client = connect(through);
    const names = Array.from({ length: 101 }, (_, index) => `channel-${index}`);
    const all = names.slice(0, 100).map((name) => join(client, name));
    const { status, error } = await once(client.subscribe(names[100]), 'pusher:subscription_error');
    assert.equal(status, 413);
    assert.match(error, /^channel-100, beyond 100 channels or the 8 KiB .* needs a WebSocket/);
    await Promise.all(all);
    const last = await next(names[0], names[99]);
    await arrived(client, names[0], last);
    await arrived(client, names[99], last);

    const long = connect(through);
    const many = Array.from({ length: 60 }, (_, index) => `private-${'long'.repeat(10)}-${index}`);
    const results = await within('60 long names', Promise.all(many.map((name) => new Promise((resolve) => {
      const channel = long.subscribe(name);
      channel.bind('pusher:subscription_succeeded', () => resolve('succeeded'));
      channel.bind('pusher:subscription_error', (refusal) => resolve(refusal.status));
    }))));
    const count = results.filter((result) => result === 'succeeded').length;
    assert.ok(count >= 35 && count < 60, `${count} of 60`);
    assert.ok(results.every((result) => ['succeeded', 413].includes(result)), results.join());
    assert.ok(through.heads.every((head) => head.length < 16_000));
  },

  /** An event that comes with the answer to the subscription reaches the page, and a channel that was left is empty. */
  async changes() {
    for (const buffers of [false, true]) {
      const through = await proxy({ upgrades: 403, buffers });
      const client = connect(through);
      await join(client, 'first');
      const joined = join(client, 'second');
      await eventually('it is asked for', () => through.heads.at(-1).includes('after[second]'));
      await new Promise((resolve) => setTimeout(resolve, 200));
      const one = await next('second');
      await joined;
      await arrived(client, 'second', one);
      if (buffers) continue;
      client.unsubscribe('second');
      await eventually('it is empty', async () => (await api('GET', '/channels/second')).occupied === false);
      await arrived(client, 'first', await next('first', 'second'));
      assert.deepEqual(client.seen.second, [one]);
      const requests = through.heads.length;
      // Changes of one moment are one request.
      await Promise.all(['a', 'b', 'c'].map((name) => join(client, name)));
      assert.equal(through.heads.length, requests + 1);
    }
  },

  /** Polls return only what the history has. */
  async withoutHistory() {
    const through = await proxy({ upgrades: 403, buffers: true });
    const client = connect(through);
    await join(client, 'news');
    const { type, error, status } = await once(client.subscribe('no-history-a'), 'pusher:subscription_error');
    assert.deepEqual([type, status], ['FallbackError', 400]);
    assert.match(error, /no-history-a has no history, which polls need/);
    await arrived(client, 'news', await next('news'));
    const streaming = connect(await proxy({ upgrades: 403 }));
    const channel = await join(streaming, 'no-history-a');
    const got = once(channel, 'n');
    assert.deepEqual({ number: await next('no-history-a') }, await got);
    // Other channels come, and it has no gap, because it has nothing that could be missing.
    await join(streaming, 'news');
    await join(streaming, 'more');
    await arrived(streaming, 'more', await next('more'));
    await arrived(streaming, 'no-history-a', await next('no-history-a'));
    assert.deepEqual(streaming.gaps, []);
  },

  /** Options decide which transports there are; wrong ones are errors. */
  async options() {
    const through = await proxy({ upgrades: 403 });
    const never = connect(through, false);
    const polling = connect(through, { ...QUICK, transports: ['poll'] });
    await join(polling, 'news');
    assert.equal(polling.transport, 'poll');
    const listed = connect(through, ['sse']);
    await join(listed, 'news');
    assert.equal(listed.transport, 'sse');
    const usual = connect(through, true);
    await join(usual, 'news');
    assert.equal(usual.transport, 'sse');
    // Beside ws, pusher-js tries wss on another port.
    const both = connect(through, QUICK, { enabledTransports: undefined });
    await join(both, 'news');
    assert.equal(both.transport, 'sse');
    await new Promise((resolve) => setTimeout(resolve, 3000));
    assert.deepEqual(both.states.slice(-1), ['connected']);
    assert.notEqual(never.connection.state, 'connected');
    assert.equal(never.transport, undefined);
    for (const [fallback, words] of [
      ['sse', /fallback is true, false, a list/],
      [0, /fallback is true, false, a list/],
      [[], /takes the transports "sse" and "poll", not \[\]/],
      [['ws'], /takes the transports "sse" and "poll", not \["ws"\]/],
      [{ transports: 'sse' }, /takes the transports/],
      [{ timeout: 5 }, /fallback.timeout is at least 100 ms/],
      [{ retryInterval: '1' }, /fallback.retryInterval is at least 100 ms/],
    ]) {
      assert.throws(() => connect(through, fallback), words, JSON.stringify(fallback));
    }
  },

  /** Without HTTP there is no fallback, and a client that has disconnected sends nothing. */
  async ends() {
    const through = await proxy({ upgrades: 403 });
    through.isClosed = true;
    const client = connect(through, { ...QUICK, timeout: 300 });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.equal(client.connection.state, 'connecting');
    client.disconnect();
    through.isClosed = false;
    client.connect();
    await join(client, 'ends');
    assert.equal(client.transport, 'sse');
    client.disconnect();
    assert.equal(client.transport, undefined);
    await eventually('the stream is closed', async () => (await api('GET', '/channels/ends')).occupied === false);
    const sent = through.heads.length;
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.equal(through.heads.length, sent);
    through.upgrades = 'pass';
    client.connect();
    await once(client.channel('ends'), 'pusher:subscription_succeeded');
    assert.equal(client.transport, 'websocket');
    assert.deepEqual(kinds(through).slice(sent), ['ws']);
  },

  /** A server that could not be reached at all is no proof against WebSockets. */
  async outage() {
    const through = await proxy();
    const client = connect(through, { timeout: 500, retryInterval: 600_000 });
    await join(client, 'news');
    through.isClosed = true;
    through.cut();
    await eventually('it is away', () => client.connection.state === 'connecting');
    // pusher-js tries a WebSocket at once and after 15 s.
    await new Promise((resolve) => setTimeout(resolve, 17_000));
    through.isClosed = false;
    await once(client.channel('news'), 'pusher:subscription_succeeded');
    assert.equal(client.transport, 'websocket');
    assert.ok(!kinds(through).includes('sse'), kinds(through).join());
  },

  /** Relay's own endpoint signs for an id for 10 minutes, so an older connection begins anew before it is asked. */
  async ids() {
    const through = await proxy({ upgrades: 403 });
    const client = connect(through, QUICK, { authEndpoint: `/api/v1/apps/${appId}/auth` });
    await join(client, 'news');
    const { socket_id: id } = client.connection;
    client.fallback.idAt -= 550_000;
    const { status } = await once(client.subscribe('private-a'), 'pusher:subscription_error');
    assert.equal(status, 401, 'this app has no authorizer');
    assert.notEqual(client.connection.socket_id, id);
    const posts = through.heads.filter((head) => head.startsWith('POST'));
    assert.equal(posts.length, 1, 'it was not asked for the old id');
    assert.deepEqual(client.errors, []);
    await arrived(client, 'news', await next('news'));
  },
};

main(async () => {
  backend = await serve(({ path, form }) => {
    if (path === '/user-auth') return [200, signedUser(form.get('socket_id'), { id: '7' })];
    const name = form.get('channel_name');
    return [200, signed(form.get('socket_id'), name, { user_id: '7' })];
  });
  const chosen = process.argv[2] ? process.argv[2].split(',') : Object.keys(scenarios);
  for (const name of chosen) {
    await scenarios[name]();
    console.log(name);
    clients.splice(0).forEach((client) => client.disconnect());
  }
  console.log('done');
});
