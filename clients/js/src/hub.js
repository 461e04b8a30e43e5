// The leader's side of a shared connection: which tab gets which message (R-CLIENT-7, threat T105).
//
// A port is a tab: `emit(event, value)` makes its link emit, `leave(reason)` sends it to a connection of its own. A tab
// gets the messages of the channels that it subscribed to itself, with an authorization of its own, and no others.

import { SharedChannel } from './shared_channel.js';

/** Events of a connection that end it, or that concern all of its tabs. */
const FORWARDED = ['tls_only', 'refused', 'backoff', 'retry'];

export class Hub {
  /** `connection` is one of pusher-js; `local` is the port of the leader's own tab; `onEnd` is called when it ends. */
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

  /** Ends the connection; the other tabs look for another one. */
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

  /** The leader's own tab comes last: what it does may end the hub, and the others must have got the same by then. */
  deliver(ports, event, value) {
    const all = [...ports];
    for (const port of all) if (port !== this.local) port.emit(event, value);
    if (all.includes(this.local)) this.local.emit(event, value);
  }

  admit(port) {
    this.ports.set(port.id, port);
  }

  /** Removes a tab from all that it shared. */
  remove(id) {
    const port = this.ports.get(id);
    if (!port) return;
    this.ports.delete(id);
    this.signin?.ports.delete(port);
    for (const channel of [...this.channels.values()]) this.leaveChannel(channel, port);
  }

  /** A message that a tab sends. */
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

  /** The answer to a subscription that is in flight has to come first. */
  leaveIfUnused(channel) {
    const isKnown = this.channels.get(channel.name) === channel;
    if (this.isOver || !isKnown || !channel.isSubscribed || channel.tabs.size > 0) return;
    this.channels.delete(channel.name);
    this.connection.send_event('pusher:unsubscribe', { channel: channel.name });
  }

  /** A connection has one user for its lifetime (P-USER-2), so a tab of another user has to leave. */
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

  /** Whom the user watches: what the server said at first and since, as one message would say it. */
  watchlist() {
    const ids = { online: [], offline: [] };
    for (const [id, state] of this.watched) ids[state]?.push(id);
    return Object.entries(ids).filter(([, list]) => list.length > 0).map(([name, list]) => ({ name, user_ids: list }));
  }

  /** The server sends a client event to all connections but this one, so the other tabs get it from here. */
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

  /** A message of the server. */
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
    // Whatever arrives shows that the connection lives; only the leader's own tab checks that.
    this.local.emit('activity');
  }

  routeToChannel(channel, message) {
    channel.note(message);
    if (message.event === 'pusher:subscription_error') this.channels.delete(channel.name);
    this.deliver(channel.tabs, 'message', message);
    this.leaveIfUnused(channel);
  }

  /** The tabs that an error is for: it may quote a channel with its member, which other tabs must not read. */
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

  /** After the tab's own code has run: an answer of the server never comes while a message is being sent either. */
  later(action) {
    queueMicrotask(() => {
      if (!this.isOver) action();
    });
  }
}

/** The `data` of a message as pusher-js decodes it. */
function decoded(data) {
  if (typeof data !== 'string') return data;
  try {
    return JSON.parse(data);
  } catch {
    return data;
  }
}
