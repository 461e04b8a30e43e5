// Where Relay is: the options if they say so, else the server that the classic script came from, else the page's host.

/** The URL as an object if it has a host to connect to; undefined for `file:`, `blob:`, `about:` and no URL at all. */
function webUrl(text) {
  try {
    const url = new URL(text);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url : undefined;
  } catch {
    return undefined;
  }
}

/** The URL of the page or of the worker's script; undefined outside of both. */
function pageUrl() {
  return webUrl(globalThis.location?.href);
}

/** The options of pusher-js for host, ports and TLS that follow from where the script and the page come from. */
export function placeOptions(options, scriptUrl) {
  const page = pageUrl();
  if (options.wsHost) return page ? { forceTLS: page.protocol === 'https:' } : {};
  const source = webUrl(scriptUrl) ?? page;
  if (!source) throw new Error('Relay: set wsHost to the host of your Relay server; there is no page whose host it could be');
  const hasTls = source.protocol === 'https:';
  const port = Number(source.port) || (hasTls ? 443 : 80);
  return { wsHost: source.hostname, wsPort: port, wssPort: port, forceTLS: hasTls };
}

/** The address of Relay's HTTP routes, by the configuration of pusher-js: `https://relay.example.com:443/prefix`. */
export function relayUrl({ useTLS, wsHost, wsPort, wssPort, wsPath }) {
  return useTLS ? `https://${wsHost}:${wssPort}${wsPath}` : `http://${wsHost}:${wsPort}${wsPath}`;
}

/**
 * The address of an auth endpoint, and whether it is Relay's own. A path below Relay's routes is at Relay, any other is
 * relative to the page (R-CLIENT-4).
 */
export function endpointAddress(endpoint, config) {
  const relay = relayUrl(config);
  if (/^\/(api\/v1\/)?apps\//.test(endpoint)) return { url: relay + endpoint, isRelays: true };
  const page = globalThis.document?.baseURI ?? globalThis.location?.href;
  let url;
  try {
    url = new URL(endpoint, page);
  } catch {
    throw new Error(`Relay: the auth endpoint "${endpoint}" is relative, and there is no page: give its whole URL`);
  }
  const isRoute = /\/apps\/[^/]+\/(user-)?auth$/.test(url.pathname);
  const isRouteOfKey = /\/(broadcasting|pusher)\/(user-)?auth$/.test(url.pathname) && url.searchParams.has('key');
  return { url: url.href, isRelays: (isRoute || isRouteOfKey) && url.origin === new URL(relay).origin };
}
