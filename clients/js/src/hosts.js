// The hosts whose connections resume.

/** Entries of the option `hosts`: a host name for all of its ports, or `host:port`. */
export function parseHosts(hosts) {
  if (!Array.isArray(hosts) || hosts.length === 0) {
    throw new TypeError("Relay: resume needs the hosts of your Relay servers: { hosts: ['relay.example.com'] }");
  }
  return hosts.map((entry) => {
    const [, name, port] = /^(\[[\da-f:.]+\]|[^\s/:@?#[\]]+)(?::(\d+))?$/i.exec(entry) ?? [];
    const url = name && parseUrl(`ws://${name}`);
    if (!url) throw new TypeError(`Relay: "${entry}" in hosts is neither a host name nor host:port`);
    return { name: url.hostname, port };
  });
}

/** Whether a WebSocket's URL leads to one of these hosts. */
export function covers(hosts, address) {
  const url = parseUrl(address);
  if (!url) return false;
  const port = url.port || (url.protocol === 'wss:' ? '443' : '80');
  return hosts.some((host) => host.name === url.hostname && (host.port ?? port) === port);
}

function parseUrl(text) {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}
