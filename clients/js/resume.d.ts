import type { PusherClass } from './index.js';

/** A channel continues exactly after the last event that it had. The missed events follow. */
export interface HistoryResumed {
  /** Id of the last event before them, or the position of the channel. */
  after: string;
}

/** Events of a channel may be missing. The events that are still kept follow. */
export interface HistoryGap {
  /** Those after this id, which is null if the server could not read it, */
  after: string | null;
  /** up to this one, which is null if the channel has no history. */
  resumes_at: string | null;
  reason: 'expired' | 'epoch' | 'ahead' | 'unreadable';
}

/** Where it happened. */
export interface ResumedChannel {
  pusher: InstanceType<PusherClass>;
  /** Name of the channel. */
  channel: string;
}

export interface Resume {
  on(event: 'resumed', listener: (resumed: HistoryResumed & ResumedChannel) => void): this;
  on(event: 'gap', listener: (gap: HistoryGap & ResumedChannel) => void): this;
  off(event: 'resumed', listener: (resumed: HistoryResumed & ResumedChannel) => void): this;
  off(event: 'gap', listener: (gap: HistoryGap & ResumedChannel) => void): this;
}

export interface ResumeOptions {
  /** Relay's hosts: `relay.example.com` for all ports, or `relay.example.com:6001`. */
  hosts: string[];
}

/**
 * Makes all connections of a class of pusher-js to these hosts continue after the last event of each channel. Call it
 * before the first Pusher object is created: an open connection has no ids.
 */
export declare function resume(pusher: PusherClass, options: ResumeOptions): Resume;
