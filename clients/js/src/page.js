// Resume in a page: for the global `Pusher`, whenever a script sets it.

import { parseHosts } from './hosts.js';
import { Resume, isPusherClass } from './resume.js';

/** `script` is the element of this script: its `data-hosts`, or else the host that it was loaded from, is Relay's. */
export function resumeInPage(script) {
  const resuming = new Resume(hostsOf(script));
  attachToGlobal(resuming);
  return resuming;
}

function hostsOf(script) {
  const given = script?.dataset.hosts?.split(/[\s,]+/).filter(Boolean);
  if (given?.length > 0) return parseHosts(given);
  if (/^https?:/.test(script?.src ?? '')) return parseHosts([new URL(script.src).hostname]);
  console.warn('relay-resume.js: no host of Relay is known: load it by <script src>, with data-hosts if it is a copy');
  return [];
}

function attachToGlobal(resuming) {
  let current;
  const set = (value) => {
    current = value;
    if (isPusherClass(value)) resuming.attach(value);
  };
  set(globalThis.Pusher);
  const existing = Object.getOwnPropertyDescriptor(globalThis, 'Pusher');
  if (existing?.configurable === false) return;
  // pusher-js may come later, and another copy of it may take the place of the first.
  Object.defineProperty(globalThis, 'Pusher', { configurable: true, enumerable: true, get: () => current, set });
}
