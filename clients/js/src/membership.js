// One tab's place in a group of tabs: its line to the leader, its turn to lead, and the news of who is gone
// (R-CLIENT-7).
//
// A group has a lock that its leader holds: the browser passes it on when the leader's tab closes or crashes. Each tab
// holds a lock with its own name, so the leader knows when it is gone. A tab and the leader talk on a line with the
// tab's random name, which only these two open: a page that opens a BroadcastChannel hears all others on it, even if it
// means only to speak. The lobby, which all hear, carries only who is looking for a leader and who is one. Nothing is
// kept in storage (threat T105).

/** True if this page has what sharing needs; pages over plain http beyond localhost lack it. */
export function canShare() {
  const { navigator, BroadcastChannel, crypto } = globalThis;
  return Boolean(navigator?.locks?.request && BroadcastChannel && crypto?.subtle && crypto.randomUUID);
}

/** The name of the group of tabs that agree on all of `facts`; it reveals none of them. */
export async function groupName(facts) {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(facts)));
  return `relay.${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}

export class Membership {
  /**
   * `name` is a promise of the group's name. `on` has `lead()`, `hear(message)` for the lobby, `receive(message)` for
   * what the leader says to this tab, and `serve(id, message)` for what a tab says to this leader.
   */
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
    // First its own lock: a leader that hears of this tab would else take it for gone.
    await new Promise((resolve, reject) => {
      this.hold(`${name}.${this.id}`, resolve).catch(reject);
    });
    this.hold(name, () => {
      this.leads = true;
      on.lead();
    }).catch(() => {});
  }

  /** Takes a lock when it becomes free, and holds it until this tab leaves. */
  hold(name, taken) {
    return navigator.locks.request(name, { signal: this.pending.signal }, () => {
      if (this.hasLeft) return undefined;
      taken();
      return this.ended;
    });
  }

  /** Calls back, once, when another tab of the group has left it or is gone. */
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

  /** Says something to all tabs of the group. */
  announce(message) {
    this.lobby?.postMessage({ ...message, from: this.id });
  }

  /** Says something to the leader alone. */
  tell(message) {
    if (!this.hasLeft) this.line.postMessage(message);
  }

  /** As the leader, says something to one tab. */
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

  /** From now on this tab hears nothing of the group, and another one may lead it. */
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
