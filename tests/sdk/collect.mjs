// Six pusher-js clients that collect everything on the channels named as arguments, until the event `end` arrives.
// Prints `subscribed`, then for each client one JSON line: channel to list of `[event, data]`.

import { authServer, collect, connect, main, subscribed } from './rig.mjs';

const names = process.argv.slice(2);

main(async () => {
  const endpoint = await authServer('/pusher/auth');
  const clients = ['1', '2', '3', '4', '5', '6'].map((user) => connect(endpoint, user));
  const channels = await Promise.all(clients.map((client) => Promise.all(names.map((name) => subscribed(client, name)))));
  const got = channels.map((ours) => ours.map((channel) => collect(channel)));
  console.log(`subscribed ${clients[0].connection.socket_id}`);
  for (const collectors of got) {
    const lists = await Promise.all(collectors.map((collector) => collector.ended()));
    console.log(JSON.stringify(Object.fromEntries(names.map((name, index) => [name, lists[index]]))));
  }
});
