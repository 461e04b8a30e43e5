// P-CFG-3, P-CFG-7: the server SDK by options and by `PUSHER_URL`; each publishes an event named after the way.

import Pusher from 'pusher';
import { main, server } from './rig.mjs';

main(async () => {
  await server.trigger('news', 'options', {});
  await Pusher.forURL(process.env.PUSHER_URL).trigger('news', 'url', {});
});
