// A TCP proxy in front of the server: it resets connections, blocks WebSockets and streams as the proxies of companies
// do, holds or doubles what the server sends, and records what clients send.

import { connect, createServer } from 'node:net';
import { eventually, relayHost, relayPort } from './rig.mjs';

/**
 * Starts a proxy. `limit()` returns after how many bytes from the server the next connection is reset; `doubles` sends
 * each WebSocket frame with an event id twice.
 *
 * `upgrades` and `buffers` of the result may change at any time and concern connections from then on. `upgrades` says
 * what becomes of WebSockets: `pass`; a status that answers them, such as 403; `swallow`: the request is never answered;
 * `silence`: it is, and no frame passes; `mute`: the first one does; `close`: the connection is reset after that. `buffers`
 * holds an answer of type `text/event-stream` until it is complete, and so for ever. `isClosed` refuses all connections. `pieces`
 * passes what the server sends in pieces of that many bytes.
 */
export async function proxy({ host = '127.0.0.1', limit = () => Infinity, doubles = false, ...blocks } = {}) {
  const { upgrades = 'pass', buffers = false, pieces } = blocks;
  const pairs = new Set();
  const self = { opened: 0, resets: 0, heads: [], upgrades, buffers, isClosed: false };

  function reset(pair) {
    if (!pairs.delete(pair)) return;
    self.resets += 1;
    pair.upstream.destroy();
    pair.client.resetAndDestroy();
  }

  const server = createServer((client) => {
    if (self.isClosed) {
      client.resetAndDestroy();
      return;
    }
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
    client.on('data', (bytes) => {
      const head = bytes.toString('latin1');
      const isHead = /^[A-Z]+ \S+ HTTP\/1\.1\r\n/.test(head);
      if (isHead) self.heads.push(head);
      if (isHead && /^upgrade: websocket\r$/im.test(head)) pair.upgrade = self.upgrades;
      if (typeof pair.upgrade === 'number') client.end(`HTTP/1.1 ${pair.upgrade} Blocked${REFUSAL}`);
      else if (pair.upgrade !== 'swallow') upstream.write(bytes);
    });
    const pass = (bytes) => {
      pair.isHeld ||= self.buffers && bytes.includes('text/event-stream');
      if (pair.isHeld) return;
      if (pieces) return void inPieces(pair, bytes, pieces);
      client.write(bytes.subarray(0, pair.left));
      pair.left -= bytes.length;
      if (pair.left <= 0) reset(pair);
    };
    const framed = doubles ? byFrame((frame) => {
      pass(frame);
      if (frame.includes('"id":"evt_')) pass(frame);
    }) : byFrame((frame, index) => {
      const passed = pair.upgrade === 'silence' ? 1 : 2;
      if (index < passed) pass(frame);
      else if (pair.upgrade === 'close') reset(pair);
    });
    upstream.on('data', (bytes) => {
      const isFramed = pair.upgrade && (doubles || ['silence', 'mute', 'close'].includes(pair.upgrade));
      (isFramed ? framed : pass)(bytes);
    });
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

/** Requests of a proxy's clients, without preflights: `ws`, `time`, `sse` or `poll`. */
export function kinds(through) {
  const heads = through.heads.filter((head) => !head.startsWith('OPTIONS'));
  return heads.map((head) => /^GET \/app\/[^/?]+(?:\/(\w+))?/.exec(head)?.[1] ?? 'ws');
}

/** Passes bytes one piece after another, each in a turn of its own. */
async function inPieces(pair, bytes, size) {
  pair.upstream.pause();
  pair.client.setNoDelay();
  for (let start = 0; start < bytes.length && !pair.client.destroyed; start += size) {
    pair.client.write(bytes.subarray(start, start + size));
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  pair.upstream.resume();
}

const REFUSAL = '\r\nContent-Length: 0\r\nConnection: close\r\n\r\n';

/** Splits what a server sends into the head of its response and WebSocket frames. */
function byFrame(pass) {
  let rest = Buffer.alloc(0);
  let index = 0;
  return (bytes) => {
    rest = Buffer.concat([rest, bytes]);
    for (;;) {
      const end = index > 0 ? frameEnd(rest) : rest.indexOf('\r\n\r\n') + 4;
      if (index > 0 ? end > rest.length : end < 4) return;
      const part = rest.subarray(0, end);
      rest = rest.subarray(end);
      pass(part, index);
      index += 1;
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
