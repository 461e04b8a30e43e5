// A TCP proxy in front of the server: it resets connections, holds or doubles what the server sends, and records what
// clients send.

import { connect, createServer } from 'node:net';
import { eventually, relayHost, relayPort } from './rig.mjs';

/**
 * Starts a proxy. `limit()` returns after how many bytes from the server the next connection is reset; `doubles` sends
 * each WebSocket frame with an event id twice.
 */
export async function proxy({ host = '127.0.0.1', limit = () => Infinity, doubles = false } = {}) {
  const pairs = new Set();
  const self = { opened: 0, resets: 0, heads: [] };

  function reset(pair) {
    if (!pairs.delete(pair)) return;
    self.resets += 1;
    pair.upstream.destroy();
    pair.client.resetAndDestroy();
  }

  const server = createServer((client) => {
    const upstream = connect(relayPort, relayHost);
    const pair = { client, upstream, left: limit() };
    pairs.add(pair);
    self.opened += 1;
    for (const socket of [client, upstream]) {
      socket.on('error', () => {});
      socket.on('close', () => {
        pairs.delete(pair);
        client.destroy();
        upstream.destroy();
      });
    }
    client.once('data', (bytes) => self.heads.push(bytes.toString('latin1')));
    client.on('data', (bytes) => upstream.write(bytes));
    const pass = (bytes) => {
      client.write(bytes.subarray(0, pair.left));
      pair.left -= bytes.length;
      if (pair.left <= 0) reset(pair);
    };
    upstream.on('data', doubles ? doubled(pass) : pass);
  });
  await new Promise((resolve) => {
    server.listen(0, host, resolve);
  });
  server.unref();
  return Object.assign(self, {
    place: { wsHost: host, wsPort: server.address().port, forceTLS: false, cluster: 'mt1' },
    /** Resets all connections. */
    cut: () => [...pairs].forEach(reset),
    /** Holds what the server sends on the connections of now; returns the function that lets it through. */
    hold() {
      const held = [...pairs];
      held.forEach(({ upstream }) => upstream.pause());
      return () => held.forEach(({ upstream }) => upstream.resume());
    },
    /** Waits until this many connections exist. */
    connections: (count) => eventually(`${count} connections`, () => pairs.size === count),
  });
}

/** Splits what a server sends into WebSocket frames, after the head of its response, and passes events twice. */
function doubled(pass) {
  let rest = Buffer.alloc(0);
  let isOpen = false;
  return (bytes) => {
    rest = Buffer.concat([rest, bytes]);
    for (;;) {
      const end = isOpen ? frameEnd(rest) : rest.indexOf('\r\n\r\n') + 4;
      if (isOpen ? end > rest.length : end < 4) return;
      const part = rest.subarray(0, end);
      rest = rest.subarray(end);
      pass(part);
      if (isOpen && part.includes('"id":"evt_')) pass(part);
      isOpen = true;
    }
  };
}

/** The length of the first frame, which is not masked (RFC 6455 section 5.2). */
function frameEnd(bytes) {
  if (bytes.length < 2) return Infinity;
  const length = bytes[1];
  if (length < 126) return 2 + length;
  const size = length === 126 ? 2 : 8;
  if (bytes.length < 2 + size) return Infinity;
  return 2 + size + (size === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2)));
}
