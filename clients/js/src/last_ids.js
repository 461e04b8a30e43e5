// The last event id of each channel of each Pusher object, in memory only (R-CLIENT-10).
//
// An entry belongs to the channel object of pusher-js, which lives as long as the application stays subscribed: across
// connections, but not across an unsubscribe, even one without a connection. So a channel's id ends with its object. Its
// key is the same in every copy of this module, so that `relay.js` and `relay-resume.js` in one page share the entries.

const USER_CHANNEL = '#server-to-user-';

const ENTRY = Symbol.for('@relay/client/last-id');

/**
 * The entry of a channel that the application is subscribed to: `last` is the id of its last event, or its position,
 * or null. pusher-js makes the channel of the signed-in user anew for each connection, so its entry is that of the user.
 */
export function lastIdOf(pusher, name) {
  const owner = name.startsWith(USER_CHANNEL) ? pusher.user : pusher.channel(name);
  if (!owner) return undefined;
  if (owner[ENTRY]?.name !== name) {
    Object.defineProperty(owner, ENTRY, { configurable: true, value: { name, last: null } });
  }
  return owner[ENTRY];
}
