// A receiver of webhooks as the documentation of a JavaScript server SDK constructs it (P-SDK-24, P-HOOK-1 to P-HOOK-3): requests
// that the SDK finds valid are printed, one event per line; others are refused, which the test would see as a missing event.
//
//   webhooks.mjs PACKAGE NAME

import { createServer } from 'node:http';
import { shown } from './rig.mjs';

const [packageName, name] = process.argv.slice(2);
const { default: Pusher } = await import(packageName);
const { RELAY_APP_ID, RELAY_KEY, RELAY_SECRET } = process.env;
const sdk = new Pusher({ appId: RELAY_APP_ID, key: RELAY_KEY, secret: RELAY_SECRET });

/** One of the SDKs returns the result at once, the other returns a promise. */
async function isValid(rawBody, headers) {
  const webhook = sdk.webhook({ rawBody, headers });
  const forged = sdk.webhook({ rawBody: `${rawBody} `, headers });
  return (await webhook.isValid()) && !(await forged.isValid()) && Math.abs(Date.now() - webhook.getTime()) < 300_000;
}

const receiver = createServer((request, response) => {
  let rawBody = '';
  request.setEncoding('utf8');
  request.on('data', (part) => { rawBody += part; });
  request.on('end', async () => {
    if (!(await isValid(rawBody, request.headers))) return response.writeHead(401).end();
    shown(name, 'webhooks');
    for (const event of sdk.webhook({ rawBody, headers: request.headers }).getEvents()) console.log(JSON.stringify(event));
    return response.writeHead(200).end();
  });
});
receiver.listen(0, '127.0.0.1', () => console.log(`port ${receiver.address().port}`));
