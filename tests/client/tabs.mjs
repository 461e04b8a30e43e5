// One connection for the tabs of one user, in Chromium. R-CLIENT-7, threat T105.

import assert from 'node:assert/strict';
import Relay from '@relay/client';
import { harnessPage, recordMessages, site, withBrowser } from './browser.mjs';
import { api, eventually, key, main, once, place, publish, serve, signed, signedUser, within } from './rig.mjs';

main(() => withBrowser(async (browser) => {
  // The site; the header is the login. A channel `private-of-7` is for user 7 alone.
  const { origin, requests } = await site({ '/': harnessPage }, ({ path, headers, form }) => {
    const user = headers['x-user'];
    const socketId = form.get('socket_id');
    if (path === '/broadcasting/user-auth') return [200, signedUser(socketId, { id: user })];
    const channel = form.get('channel_name');
    const isForbidden = channel.startsWith('private-of-') && channel !== `private-of-${user}`;
    if (path !== '/broadcasting/auth' || isForbidden) return 403;
    if (channel === 'presence-forged') return [200, signed('1.1', channel, { user_id: user })];
    return [200, signed(socketId, channel, { user_id: user, user_info: { name: user } })];
  });
  const scenarios = [sharing, leavingAChannel, leaders, crash, users, identities, logout, refusal, dialog, ordinary];
  for (const scenario of scenarios) {
    const context = await browser.newContext();
    await context.addInitScript(recordMessages);
    requests.length = 0;
    await scenario({ context, origin, requests });
    await context.close();
    await connections(0);
    console.log(scenario.name);
  }
}));

/** Options of a tab of this user. */
const of = (user, shareTabs = { user }) => ({ shareTabs, auth: { headers: { 'X-User': user } } });

/** A tab with a connected client. */
async function open({ context, origin }, options) {
  const page = await context.newPage();
  const frames = [];
  page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => frames.push(String(payload))));
  page.on('pageerror', (error) => console.error('in a page:', error));
  await page.goto(origin);
  const run = (action, argument) => within(String(action), page.evaluate(action, argument));
  await run((given) => start(given), options);
  return {
    page,
    run,
    join: (name) => run((channel) => join(channel), name),
    role: () => run(() => relay.sharing),
    socketId: () => run(() => relay.connection.socket_id),
    events: () => run(() => events),
    /** Waits for an event on a channel; returns its data. */
    async heard(channel, event) {
      const wanted = [channel, event];
      const isThere = ([name, what]) => events.some((entry) => entry[0] === name && entry[1] === what);
      await within(`${event} on ${channel}`, page.waitForFunction(isThere, wanted));
      return run(([name, what]) => events.find((entry) => entry[0] === name && entry[1] === what)[2], wanted);
    },
    /** All that reached this tab, handled or not: messages of other tabs, and frames of its own sockets. */
    async received(since = { messages: 0, frames: 0 }) {
      const messages = await run((first) => received.slice(first), since.messages);
      return [...messages, ...frames.slice(since.frames)].join('\n');
    },
    /** How much has reached it, for `received`. */
    async mark() {
      return { messages: await run(() => received.length), frames: frames.length };
    },
  };
}

/** Waits until the server has this many connections. */
async function connections(count) {
  await eventually(`${count} connections`, async () => (await api('GET', '/connections')).connections === count);
}

/** An ordinary client, for what does not come from a tab. */
async function guest() {
  const answer = ({ form }) => {
    const member = { user_id: 'guest', user_info: { name: 'guest' } };
    return [200, signed(form.get('socket_id'), form.get('channel_name'), member)];
  };
  const { port } = await serve(answer);
  const client = new Relay(key, { ...place, authEndpoint: `http://127.0.0.1:${port}/` });
  await once(client.connection, 'connected');
  return client;
}

/** Signs a tab's user in; events to that user are recorded as of a channel `#user`. */
async function signIn(tab) {
  await tab.run(() => {
    relay.user.bind_global((event, data) => events.push(['#user', event, data]));
    relay.signin();
    return relay.user.signinDonePromise;
  });
  await within('the channel of the user', tab.page.waitForFunction(() => relay.user.serverToUserChannel?.subscribed));
}

/** Two tabs, one connection, with all that a connection of its own gives; each authorizes for itself. */
async function sharing(world) {
  const first = await open(world, of('a'));
  const second = await open(world, of('a'));
  assert.deepEqual([await first.role(), await second.role()], ['leader', 'follower']);
  const socketId = await first.socketId();
  assert.equal(await second.socketId(), socketId);
  await connections(1);

  for (const channel of ['news', 'private-orders', 'presence-room']) {
    for (const tab of [first, second]) assert.equal(await tab.join(channel), 'succeeded');
    await publish(channel, 'shipped', { on: channel });
    for (const tab of [first, second]) assert.deepEqual(await tab.heard(channel, 'shipped'), { on: channel });
  }
  for (const channel of ['private-orders', 'presence-room']) {
    const asked = world.requests.filter(({ form }) => form.get('channel_name') === channel);
    assert.deepEqual(asked.map(({ form }) => form.get('socket_id')), [socketId, socketId], channel);
  }

  // A tab that joins later sees who came in between.
  const other = await guest();
  await once(other.subscribe('presence-room'), 'pusher:subscription_succeeded');
  for (const tab of [first, second]) assert.equal((await tab.heard('presence-room', 'pusher:member_added')).id, 'guest');
  const third = await open(world, of('a'));
  assert.equal(await third.join('presence-room'), 'succeeded');
  const { me, ids, count } = await third.run(() => {
    const { members } = relay.channel('presence-room');
    return { me: members.me.id, ids: Object.keys(members.members).sort(), count: members.count };
  });
  assert.deepEqual({ me, ids, count }, { me: 'a', ids: ['a', 'guest'], count: 2 });

  // Client events reach the other tabs and the other clients, and not their sender.
  const whispered = once(other.channel('presence-room'), 'client-typing');
  await first.run(() => relay.channel('presence-room').trigger('client-typing', { at: 1 }));
  assert.deepEqual(await whispered, { at: 1 });
  for (const tab of [second, third]) assert.deepEqual(await tab.heard('presence-room', 'client-typing'), { at: 1 });
  other.channel('presence-room').trigger('client-answer', { at: 2 });
  for (const tab of [first, second, third]) assert.deepEqual(await tab.heard('presence-room', 'client-answer'), { at: 2 });
  assert.ok((await first.events()).every(([, event]) => event !== 'client-typing'));

  // A cache channel has its last event for a tab that joins later.
  assert.equal(await first.join('cache-price'), 'succeeded');
  await publish('cache-price', 'price', { eur: 7 });
  await first.heard('cache-price', 'price');
  assert.equal(await second.join('cache-price'), 'succeeded');
  assert.deepEqual(await second.heard('cache-price', 'price'), { eur: 7 });

  for (const tab of [first, second]) await signIn(tab);
  await publish('#server-to-user-a', 'mail', { unread: 3 });
  for (const tab of [first, second]) assert.deepEqual(await tab.heard('#user', 'mail'), { unread: 3 });
  assert.doesNotMatch(await third.received(), /unread/, 'this tab did not sign in');

  // The server's error quotes the channel and the member: it is for the tab that tried.
  assert.equal(await second.join('presence-forged'), 401);
  assert.match(await second.received(), /Invalid signature: .*presence-forged/);
  await third.join('marker');
  assert.doesNotMatch(await third.received(), /forged/);
  await connections(2);
  other.disconnect();
}

/** The server loses the subscription with the last tab that has it, whether that leaves the channel or closes. */
async function leavingAChannel(world) {
  const first = await open(world, of('a'));
  const second = await open(world, of('a'));
  for (const tab of [first, second]) assert.equal(await tab.join('private-orders'), 'succeeded');
  await first.run(() => relay.unsubscribe('private-orders'));
  await publish('private-orders', 'for-one', {});
  await second.heard('private-orders', 'for-one');
  assert.equal(await first.join('marker'), 'succeeded');
  assert.ok((await first.events()).every(([, event]) => event !== 'for-one'));
  await second.page.close();
  await eventually('no subscriber', async () => (await api('GET', '/channels/private-orders')).occupied === false);
  assert.equal(await first.role(), 'leader');
  await connections(1);
}

/** Numbered events without a pause while leaders close: no tab misses one without a change of its state before it. */
async function leaders(world) {
  const tabs = [];
  for (let index = 0; index < 3; index += 1) tabs.push(await open(world, of('a')));
  for (const tab of tabs) assert.equal(await tab.join('private-numbers'), 'succeeded');
  let isOver = false;
  let last = 0;
  const publishing = (async () => {
    while (!isOver) await publish('private-numbers', 'number', (last += 1));
  })();
  const beyond = (tab, number) => within(`a number beyond ${number}`, tab.page.waitForFunction(
    (limit) => events.some(([, event, data]) => event === 'number' && data > limit), number));
  for (const tab of tabs) await beyond(tab, 0);
  while (tabs.length > 1) {
    assert.equal(await tabs[0].role(), 'leader');
    await tabs.shift().page.close();
    await within('the next leader', tabs[0].page.waitForFunction(() => relay.sharing === 'leader'));
    const published = last;
    for (const tab of tabs) await beyond(tab, published);
    await connections(1);
  }
  isOver = true;
  await publishing;
  await beyond(tabs[0], last - 1);
  let previous = 0;
  let gaps = 0;
  let mayMiss = true;
  for (const [channel, event, data] of await tabs[0].events()) {
    if (channel === '' && event === 'connecting') {
      gaps += 1;
      mayMiss = true;
    }
    if (event !== 'number') continue;
    assert.ok(mayMiss ? data > previous : data === previous + 1, `${data} after ${previous}`);
    previous = data;
    mayMiss = false;
  }
  assert.ok(gaps >= 2, 'both ends of a leader were seen');
}

/** A leader that crashes is replaced as one that closes. */
async function crash(world) {
  const first = await open(world, of('a'));
  const second = await open(world, of('a'));
  for (const tab of [first, second]) assert.equal(await tab.join('private-orders'), 'succeeded');
  first.page.goto('chrome://crash').catch(() => {});
  await within('the next leader', second.page.waitForFunction(() => relay.sharing === 'leader'));
  await eventually('the channel again', () => second.run(() => relay.channel('private-orders').subscribed));
  await publish('private-orders', 'after', {});
  await second.heard('private-orders', 'after');
  await connections(1);
}

/** Two users never share, named or told apart by what they send; tabs of one user do. */
async function users(world) {
  for (const shareTabs of [undefined, true]) {
    const tabs = [];
    for (const user of ['a', 'b', 'a']) tabs.push(await open(world, of(user, shareTabs)));
    const [first, second, third] = tabs;
    assert.deepEqual(await Promise.all(tabs.map((tab) => tab.role())), ['leader', 'leader', 'follower']);
    await connections(2);
    for (const [tab, user] of [[first, 'a'], [second, 'b'], [third, 'a']]) {
      assert.equal(await tab.join(`private-of-${user}`), 'succeeded');
      await signIn(tab);
    }
    for (const user of ['a', 'b']) {
      await publish(`private-of-${user}`, 'secret', { of: `secret of ${user}` });
      await publish(`#server-to-user-${user}`, 'secret', { of: `mail of ${user}` });
    }
    for (const [tab, user, other] of [[first, 'a', 'b'], [second, 'b', 'a'], [third, 'a', 'b']]) {
      assert.deepEqual(await tab.heard(`private-of-${user}`, 'secret'), { of: `secret of ${user}` });
      assert.deepEqual(await tab.heard('#user', 'secret'), { of: `mail of ${user}` });
      assert.ok(!(await tab.received()).includes(`of ${other}`));
    }
    for (const tab of tabs) await tab.page.close();
    await connections(0);
  }
}

/** Tabs that name one user but are of two: whoever comes second shares neither a member nor a sign-in. */
async function identities(world) {
  const first = await open(world, of('a', { user: 'one' }));
  assert.equal(await first.join('presence-room'), 'succeeded');
  assert.equal(await first.join('private-of-a'), 'succeeded');
  await signIn(first);
  const member = await open(world, of('b', { user: 'one' }));
  assert.equal(await member.role(), 'follower');
  assert.equal(await member.join('presence-room'), 'succeeded');
  assert.equal(await member.role(), 'none');
  assert.equal(await member.run(() => relay.channel('presence-room').members.me.id), 'b');
  const user = await open(world, of('b', { user: 'one' }));
  assert.equal(await user.role(), 'follower');
  await signIn(user);
  assert.deepEqual([await user.role(), await user.run(() => relay.user.user_data.id)], ['none', 'b']);
  await connections(3);
  await publish('#server-to-user-a', 'mail', { of: 'mail of a' });
  await publish('private-of-a', 'secret', { of: 'secret of a' });
  assert.deepEqual(await first.heard('#user', 'mail'), { of: 'mail of a' });
  await first.heard('private-of-a', 'secret');
  for (const tab of [member, user]) {
    assert.equal(await tab.join('marker'), 'succeeded');
    const shared = await tab.run(() => received.join('\n'));
    assert.doesNotMatch(shared, /presence\b.*hash|user_info|user_data/, 'of another user');
    assert.doesNotMatch(await tab.received(), /of a"/);
  }
}

/** After a logout a tab gets nothing more of its user, whoever logs in there; the other tabs of its user continue. */
async function logout(world) {
  const tabs = [await open(world, of('a')), await open(world, of('a')), await open(world, of('a'))];
  for (const tab of tabs) assert.equal(await tab.join('private-of-a'), 'succeeded');
  const [first, second, third] = tabs;
  // A tab that follows, then the one that leads.
  for (const [tab, rest] of [[second, [first, third]], [first, [third]]]) {
    await tab.run(() => relay.disconnect());
    assert.equal(await tab.role(), 'none');
    const before = await tab.mark();
    await tab.run((options) => start(options), of('b'));
    assert.equal(await tab.join('private-of-b'), 'succeeded');
    await within('one leader of a', rest[0].page.waitForFunction(() => relay.sharing === 'leader'));
    for (const other of rest) {
      await eventually('the channel', () => other.run(() => relay.channel('private-of-a').subscribed));
    }
    const name = `secret-${rest.length}`;
    await publish('private-of-a', name, {});
    for (const other of rest) await other.heard('private-of-a', name);
    assert.equal(await tab.join(`marker-${rest.length}`), 'succeeded');
    assert.ok(!(await tab.received(before)).includes('private-of-a'));
  }
  await connections(2);
}

/** A tab that its endpoint refuses leaves at once; what it may have comes over a connection of its own. */
async function refusal(world) {
  const first = await open(world, of('a'));
  assert.equal(await first.join('private-of-a'), 'succeeded');
  const idle = await open(world, of('a'));
  // The session of this tab is another user's by now.
  const second = await open(world, of('b', { user: 'a' }));
  assert.equal(await second.join('news'), 'succeeded');
  assert.equal(await second.role(), 'follower');
  await publish('private-of-a', 'secret', { number: 1 });
  await first.heard('private-of-a', 'secret');
  assert.equal(await second.join('private-of-a'), 403);
  await within('its own connection', second.page.waitForFunction(() => relay.connection.state === 'connected'
    && relay.sharing === 'none' && relay.channel('news').subscribed));
  await publish('private-of-a', 'secret', { number: 2 });
  await publish('news', 'headline', {});
  await second.heard('news', 'headline');
  assert.equal(await idle.join('marker'), 'succeeded');
  for (const tab of [second, idle]) assert.doesNotMatch(await tab.received(), /secret/);
  await connections(2);

  // A leader that is refused gives the others another connection.
  const leader = await open(world, of('b', { user: 'c' }));
  const follower = await open(world, of('c'));
  assert.deepEqual([await leader.role(), await follower.role()], ['leader', 'follower']);
  assert.equal(await follower.join('private-of-c'), 'succeeded');
  assert.equal(await leader.join('private-of-c'), 403);
  await within('another leader', follower.page.waitForFunction(() => relay.sharing === 'leader'));
  await eventually('the channel', () => follower.run(() => relay.channel('private-of-c').subscribed));
  const since = await leader.mark();
  await publish('private-of-c', 'secret', {});
  await follower.heard('private-of-c', 'secret');
  await within('its own connection', leader.page.waitForFunction(() => relay.connection.state === 'connected'));
  assert.equal(await leader.join('marker'), 'succeeded');
  assert.doesNotMatch(await leader.received(since), /secret/);
}

/** A leader that shows a dialog runs no code: a new tab connects by itself. */
async function dialog(world) {
  const first = await open(world, of('a'));
  const shown = within('a dialog', first.page.waitForEvent('dialog'));
  const closed = first.page.evaluate(() => alert('Wait'));
  const box = await shown;
  const second = await open(world, of('a'));
  assert.equal(await second.role(), 'none');
  await connections(2);
  await box.dismiss();
  await closed;
  assert.equal(await first.role(), 'leader');
}

/** Without locks or broadcast channels, and with a user that is not known, a tab is an ordinary client. */
async function ordinary(world) {
  await open(world, of('a', { user: undefined }));
  await connections(1);
  await world.context.addInitScript(() => {
    if (location.hash === '#locks') Object.defineProperty(navigator, 'locks', { value: undefined });
    if (location.hash === '#channels') delete globalThis.BroadcastChannel;
  });
  for (const [index, hash] of ['#locks', '#channels'].entries()) {
    const tab = await open({ ...world, origin: `${world.origin}/${hash}` }, of('a'));
    assert.equal(await tab.role(), 'none');
    assert.equal(await tab.join('private-of-a'), 'succeeded');
    await connections(index + 2);
  }
}
