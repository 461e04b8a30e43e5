// Writes relay.js, the classic script that Relay serves at /relay.js, from the modules in src/:
//     node clients/js/build.mjs
// With --check it only compares; an outdated file is an error.

import { readFileSync, writeFileSync } from 'node:fs';

/** Each after those that it imports. */
const MODULES = [
  'place',
  'request',
  'authorize',
  'options',
  'link',
  'membership',
  'shared_channel',
  'hub',
  'tabs',
  'define',
];

const HEADER = `/*! @relay/client, MIT OR Apache-2.0. Generated from clients/js/src by clients/js/build.mjs; do not edit. */
(() => {
'use strict';
const scriptUrl = globalThis.document?.currentScript?.src;
if (!globalThis.Pusher) throw new Error('relay.js: load pusher-js before this script; there is no global Pusher');
`;

const FOOTER = `globalThis.Relay = defineRelay(globalThis.Pusher, scriptUrl);
})();
`;

/** A module's statements without its imports, exports and comments. */
function statements(name) {
  const text = readFileSync(new URL(`src/${name}.js`, import.meta.url), 'utf8');
  return text
    .replace(/^import .*;\n/gm, '')
    .replace(/^export /gm, '')
    .replace(/^ *(\/\/.*|\/\*\*.*|\*[ /].*|\*)\n/gm, '')
    .replace(/\n{2,}/g, '\n')
    .trimStart();
}

const script = HEADER + MODULES.map(statements).join('') + FOOTER;
const path = new URL('relay.js', import.meta.url);
if (process.argv.includes('--check')) {
  if (readFileSync(path, 'utf8') !== script) {
    console.error('clients/js/relay.js is not current: run node clients/js/build.mjs and commit the result');
    process.exitCode = 1;
  }
} else {
  writeFileSync(path, script);
}
