// Tabs of one user that share one connection: the leader of the group has it, the others use it through their links
// (R-CLIENT-7).
//
//          connect()               lock taken: leads, own connection, hub
//   away ------------> entered --<                                         > disconnect(), goAlone() -> away
//                                  leader answers: link to its hub
//                                  nobody answers: own connection, and away until the next connect()
//
// pusher-js keeps its connection manager, so states, retries and subscriptions are as always: a link that ends is a
// connection that was lost, after which every tab authorizes its channels again for the next one.

import { Hub } from './hub.js';
import { Link } from './link.js';
import { Membership } from './membership.js';

/** How often a tab asks for a leader, and how long it waits for any sign of one before it connects itself. */
const ASK_INTERVAL_MS = 1000;
const SILENCE_MS_MAX = 5000;

export class Tabs {
  /** `nameOf` returns a promise of the group's name. */
  constructor(nameOf) {
    this.nameOf = nameOf;
    this.isAlone = false;
    /** Tabs that wait for a connection, with the attempt that each is in. */
    this.waiting = new Map();
    this.attempts = 0;
  }

  /** `leader`, `follower`, or `none` on a connection of its own or without one. */
  role() {
    if (this.hub) return 'leader';
    return this.link ? 'follower' : 'none';
  }

  /** The strategy that pusher-js connects by; `own` is its strategy for a connection of this tab. */
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

  /** Leaves the group: others may lead it, and the leader removes this tab from all that it shared. */
  leave() {
    this.stopAsking();
    this.watchVisibility(false);
    this.waiting.clear();
    const { hub, membership } = this;
    this.membership = null;
    this.link = null;
    // The other tabs are notified before the lines close.
    hub?.close();
    membership?.leave();
  }

  /** Leaves for good: from now on this tab has a connection of its own (threat T105). */
  goAlone(reason) {
    if (this.isAlone) return;
    console.warn(`Relay: this tab uses a connection of its own, because ${reason}`);
    const { link, localLink } = this;
    this.isAlone = true;
    this.leave();
    (link ?? localLink)?.end();
    if (this.attempt) this.connectItself();
  }

  /** Connects by pusher-js's own strategy, with nothing in between. */
  connectItself() {
    const attempt = this.endAttempt();
    attempt.runner = attempt.own.connect(attempt.minPriority, attempt.callback);
  }

  proceed() {
    if (this.membership?.leads) this.connectForAll();
    else if (this.membership) this.ask();
  }

  // The leader.

  lead() {
    this.membership.announce({ kind: 'leading' });
    // The connection of the last leader is lost.
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

  /** Opens the hub of a new connection; returns the link of this tab. */
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

  /** Lets another tab use the connection; `number` is that of its attempt, which it may have announced twice. */
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

  /** What all tabs hear. */
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

  // The others.

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

  /** A leader that says nothing, such as a tab that shows a dialog, must not keep this tab waiting. */
  leaveForNow() {
    this.leave();
    this.connectItself();
  }

  /** What comes to this tab alone. */
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

  /** Phones stop pages that are out of sight: a tab that comes into sight makes sure that its leader still runs. */
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

/** A value as another tab can receive it: events of the browser and the like are left out. */
function plain(value) {
  return JSON.parse(JSON.stringify(value));
}
