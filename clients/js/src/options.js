// The options that pusher-js gets.

import { authOptions, channelAuth, userAuth } from './authorize.js';
import { endpointAddress, placeOptions } from './place.js';

/** Options without those that are null or undefined, such as a variable that is not set. */
function given(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value != null));
}

/** R-CLIENT-1: Relay's defaults below the application's options; `relay` returns the client, once it exists. */
export function pusherOptions(options, scriptUrl, relay) {
  const set = given(options);
  // The old option would only make pusher-js warn.
  delete set.disableStats;
  const place = placeOptions(set, scriptUrl);
  const merged = { enabledTransports: ['ws', 'wss'], ...place, ...set, ...authOptions(set, relay) };
  // Relay has no clusters, but pusher-js demands one. No option may lead to the servers of Pusher.
  return { ...merged, cluster: 'relay', enableStats: false, httpHost: merged.httpHost ?? merged.wsHost };
}

/**
 * What tabs must agree on to share a connection, beside key and host (threat T105); undefined if they must not share.
 * A tab that does not say who its user is shares with tabs that send the same headers and parameters.
 */
export function sharingFacts(options, config) {
  const { shareTabs } = options;
  if (!shareTabs) return undefined;
  const channel = channelAuth(options);
  const user = userAuth(options);
  const endpoints = () => [channel, user].map(({ endpoint }) => endpointAddress(endpoint, config).url);
  if (shareTabs !== true) {
    const id = shareTabs.user;
    if ((typeof id === 'string' && id !== '') || Number.isFinite(id)) return async () => [endpoints(), 'user', String(id)];
    console.warn('Relay: shareTabs.user is not a user id, so this tab uses a connection of its own');
    return undefined;
  }
  if (options.authorizer || channel.customHandler || user.customHandler) {
    console.warn('Relay: tabs with authorization handlers of their own share a connection only with shareTabs: {user}');
    return undefined;
  }
  const sent = async ({ headers, headersProvider, params, paramsProvider }) =>
    [headers, await headersProvider?.(), params, await paramsProvider?.()].map((part) => part ?? null);
  return async () => [endpoints(), 'sent', await sent(channel), await sent(user)];
}
