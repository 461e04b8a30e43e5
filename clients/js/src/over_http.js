// What a client that reads its channels over HTTP has to know beside WebSockets.

/** Options of all requests to Relay: without cookies and headers, and so without a preflight. */
export const FETCH_OPTIONS = { cache: 'no-store', credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer' };

/** Whether an id is that of a stream: those of WebSockets never start with 0 (R-SSE-5). */
export function isStreamId(socketId) {
  return typeof socketId === 'string' && socketId.startsWith('0.');
}

/** The error of a channel, user or event that needs a WebSocket (R-CLIENT-16). */
export function needsWebSocket(what) {
  const text = `${what} needs a WebSocket, which is blocked here: this client reads its channels over HTTP`;
  return Object.assign(new Error(text), { type: 'FallbackError', status: 501 });
}
