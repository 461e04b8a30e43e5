// What pusher-js's connection manager gets in place of a connection of its own while tabs share one (R-CLIENT-7).

/** The interface of a pusher-js `Connection` over functions that pass text and pings on. */
export class Link {
  /** `way` has `send(text)`, `ping()` and `close()`. */
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

  /** Ends the link as a connection ends whose server asks for a new one at once. */
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
