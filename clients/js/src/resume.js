// Exact resume for unmodified pusher-js: its WebSockets continue from the last event of each channel (R-CLIENT-9).

import { covers, parseHosts } from './hosts.js';
import { makeResuming, withEventIds } from './resuming_socket.js';

const EVENTS = ['gap', 'resumed'];

/** Where a runtime of pusher-js keeps who listens, so that a second copy of this script does not wrap it again. */
const LISTENERS = Symbol.for('@relay/client/resume');

/**
 * Makes the connections of a Pusher class, such as that of the package `pusher-js`, to these hosts resume.
 * Returns an object with `on` and `off` for the events `gap` and `resumed`.
 */
export function resume(Pusher, { hosts } = {}) {
  const resuming = new Resume(parseHosts(hosts));
  return resuming.attach(Pusher);
}

/** The hosts of one script or call, and its listeners. */
export class Resume {
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

  /** Reports an event of a channel. An error of a listener is reported as uncaught; the others are still called. */
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

/** Whether this is a class of pusher-js, and not another value of that name. */
export function isPusherClass(value) {
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

/**
 * Before 8.2, pusher-js gives up WebSockets for good after two connections that lasted less than 4 minutes and ended
 * without a closing handshake, and is `failed` then if it may use nothing else. Here it keeps them, as later versions do.
 */
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
