// Numbered events named `n`, by which a reader finds what was lost or doubled.

import assert from 'node:assert/strict';
import { publish } from './rig.mjs';

let number = 0;

/** Publishes the next number on each of these channels; returns it. */
export async function next(...names) {
  number += 1;
  for (const name of names) await publish(name, 'n', { number });
  return number;
}

/**
 * Publishes numbers on these channels, with pauses, until `stop()`, which publishes one more. `first` and `last` are the
 * first and the last one so far.
 */
export async function publishing(names, pauseMs) {
  const first = await next(...names);
  let isOver = false;
  const self = {
    first,
    last: first,
    async stop() {
      isOver = true;
      await running;
      self.last = await next(...names);
    },
    /** All numbers from the first to the last are there, each once and in order. */
    check(seen, what) {
      const all = Array.from({ length: self.last - first + 1 }, (_, index) => first + index);
      const doubled = seen.filter((event, at) => seen.indexOf(event) !== at);
      const lost = all.filter((event) => !seen.includes(event));
      assert.deepEqual({ lost, doubled }, { lost: [], doubled: [] }, what);
      assert.deepEqual(seen, all, `${what}: in order`);
      return all.length;
    },
  };
  const running = (async () => {
    while (!isOver) {
      self.last = await next(...names);
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  })();
  return self;
}
