// The class `Relay` over a given `Pusher`: that of the package, of the page, or one with encryption.

import { Fallback, fallbackOptions } from './fallback.js';
import { canShare, groupName } from './membership.js';
import { pusherOptions, sharingFacts } from './options.js';
import { isStreamId, needsWebSocket } from './over_http.js';
import { Tabs } from './tabs.js';

/** Tabs with another version of this protocol form other groups. */
const SHARING_VERSION = 1;

/**
 * Returns `class Relay extends Pusher`. `scriptUrl` is where the script was loaded from, if Relay's host may be
 * concluded from it.
 */
export function defineRelay(Pusher, scriptUrl) {
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

    /** The part of this tab in a shared connection: `leader`, `follower`, or `none`. */
    get sharing() {
      return this.tabs?.role() ?? 'none';
    }

    /** What carries the connection of this tab: `websocket`, `sse`, `poll`, or undefined without one. */
    get transport() {
      if (this.tabs?.role() === 'follower') return undefined;
      return this.fallback ? this.fallback.transport() : this.connection.connection ? 'websocket' : undefined;
    }

    connect() {
      // The constructor of pusher-js calls this before the connection can be shared.
      if (this.isPrepared) super.connect();
    }

    /** R-CLIENT-16: over HTTP a client event goes nowhere, and `trigger` returns false. */
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

    /** Puts `Fallback` between pusher-js's connection manager and its strategies. For internal use only. */
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

    /** Puts `Tabs` between pusher-js's connection manager and its strategies. For internal use only. */
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
