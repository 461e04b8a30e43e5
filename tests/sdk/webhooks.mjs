// A receiver of webhooks as the Node server SDK's documentation makes it (P-SDK-24, P-HOOK-1 to P-HOOK-3): what the SDK finds valid
// is printed, one event per line; what it does not is refused, which the test would see as a missing event.

import { createServer } from 'node:http';

import { server } from './rig.mjs';

const receiver = createServer((request, response) => {
  let rawBody = '';
  request.setEncoding('utf8');
  request.on('data', (part) => { rawBody += part; });
  request.on('end', () => {
    const webhook = server.webhook({ rawBody, headers: request.headers });
    const age = Math.abs(Date.now() - webhook.getTime().getTime());
    const valid = webhook.isValid() && age < 300_000;
    const forged = server.webhook({ rawBody: `${rawBody} `, headers: request.headers });
    if (!valid || forged.isValid()) return response.writeHead(401).end();
    for (const event of webhook.getEvents()) console.log(JSON.stringify(event));
    return response.writeHead(200).end();
  });
});
receiver.listen(0, '127.0.0.1', () => console.log(`port ${receiver.address().port}`));
