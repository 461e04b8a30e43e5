// Reads server-sent events from the body of an answer (the event stream format of the HTML standard, as far as Relay uses
// it: R-SSE-8).

/**
 * Calls `onBytes()` for each part of the body and `onEvent(name, id, data)` for each event, until the body ends or
 * `signal` is aborted. `id` is undefined for an event without a line `id:`.
 */
export async function readEvents(body, signal, onBytes, onEvent) {
  const reader = body.getReader();
  // Node's `fetch` refers to the signal's request weakly, and once that is collected it no longer ends the body.
  const cancel = () => reader.cancel().catch(() => {});
  signal.addEventListener('abort', cancel);
  try {
    await readLines(reader, signal, onBytes, onEvent);
  } finally {
    signal.removeEventListener('abort', cancel);
    cancel();
  }
}

async function readLines(reader, signal, onBytes, onEvent) {
  const decoder = new TextDecoder();
  let rest = '';
  let fields = {};
  for (;;) {
    const { done, value } = await reader.read();
    if (done || signal.aborted) return;
    onBytes();
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line !== '') {
        const [, name, text] = /^(\w*):? ?(.*)$/.exec(line) ?? [];
        if (name) fields[name] = text;
        continue;
      }
      const { event = 'message', id, data } = fields;
      fields = {};
      if (data !== undefined) onEvent(event, id, data);
      // What the application did may have ended this stream.
      if (signal.aborted) return;
    }
  }
}
