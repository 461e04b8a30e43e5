// Writes relay.js and relay-resume.js, the classic scripts that Relay serves at these paths, from the modules in src/:
//     node clients/js/build.mjs
// With --check it only compares; an outdated file is an error.

import { readFileSync, writeFileSync } from 'node:fs';

/** The modules of each script, each after those that it imports, and what the script does with them. */
const SCRIPTS = {
  'relay.js': {
    modules: [
      'place',
      'over_http',
      'request',
      'authorize',
      'options',
      'link',
      'event_id',
      'last_ids',
      'resuming_socket',
      'event_stream',
      'stream_socket',
      'fallback',
      'membership',
      'shared_channel',
      'hub',
      'tabs',
      'define',
    ],
    start: `const scriptUrl = globalThis.document?.currentScript?.src;
if (!globalThis.Pusher) throw new Error('relay.js: load pusher-js before this script; there is no global Pusher');
`,
    end: `globalThis.Relay = defineRelay(globalThis.Pusher, scriptUrl);
`,
  },
  'relay-resume.js': {
    modules: ['event_id', 'last_ids', 'hosts', 'resuming_socket', 'resume', 'page'],
    start: '',
    end: `globalThis.RelayResume = resumeInPage(globalThis.document?.currentScript);
`,
  },
};

const HEADER = `/*! @relay/client, MIT OR Apache-2.0. Generated from clients/js/src by clients/js/build.mjs; do not edit. */
(() => {
'use strict';
`;

const FOOTER = `})();
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

for (const [name, { modules, start, end }] of Object.entries(SCRIPTS)) {
  const script = HEADER + start + modules.map(statements).join('') + end + FOOTER;
  const path = new URL(name, import.meta.url);
  if (!process.argv.includes('--check')) {
    writeFileSync(path, script);
  } else if (readFileSync(path, 'utf8') !== script) {
    console.error(`clients/js/${name} is not current: run node clients/js/build.mjs and commit the result`);
    process.exitCode = 1;
  }
}
