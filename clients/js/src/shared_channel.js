// A channel to which the shared connection subscribes once, for one or more tabs (R-CLIENT-7).

const SUCCEEDED = 'pusher_internal:subscription_succeeded';
const COUNT = 'pusher_internal:subscription_count';

export class SharedChannel {
  constructor(name, auth, channelData) {
    this.name = name;
    this.auth = auth ?? '';
    this.channelData = channelData ?? '';
    this.tabs = new Set();
    this.isSubscribed = false;
    this.members = new Map();
    this.isCached = /^(private-|presence-|private-encrypted-)?cache-/.test(name);
  }

  /**
   * Whether a tab may join by this proof. A signature covers socket, channel and member, so an equal one was verified
   * by the server already; a tab with another one must show it to the server, on another connection.
   */
  accepts(auth, channelData) {
    return this.auth === (auth ?? '') && this.channelData === (channelData ?? '');
  }

  /** The member that this connection is on a presence channel, if its subscription says so. */
  userId() {
    try {
      return String(JSON.parse(this.channelData).user_id);
    } catch {
      return undefined;
    }
  }

  /** Notes what a tab that joins later has to know. */
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

  /** What the server would send to a new subscriber, in its order (P-SUB-1). */
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
