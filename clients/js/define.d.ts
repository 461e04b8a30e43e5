import type { PusherClass, Relay } from './index.js';

/**
 * Returns the class `Relay` over another build of pusher-js, such as `pusher-js/with-encryption`. `scriptUrl` is the
 * address of a script of Relay, whose host is the default then.
 */
export declare function defineRelay(pusher: PusherClass, scriptUrl?: string): typeof Relay;
