// Compiled by `tsc --noEmit`, never run: how an application in TypeScript uses the client. R-CLIENT-8.

import Echo from 'laravel-echo';
import type { Channel, PresenceChannel } from 'pusher-js';
import Relay, { Relay as Named, type RelayOptions } from '@relay/client';
import { defineRelay } from '@relay/client/define';
import { resume, type HistoryGap, type Resume } from '@relay/client/resume';

const options: RelayOptions = {
  authEndpoint: '/api/v1/apps/1/auth',
  auth: { headers: { 'X-CSRF-Token': document.querySelector<HTMLMetaElement>('meta[name="csrf-token"]')?.content } },
  wsHost: 'relay.example.com',
  wsPort: 6001,
  shareTabs: { user: 7 },
  fallback: { transports: ['sse', 'poll'], timeout: 3000, retryInterval: 30_000 },
};
const relay: Relay = new Relay('key', options);
new Named('key');
new Relay('key', { fallback: ['poll'] });
const carrier: 'websocket' | 'sse' | 'poll' | undefined = new Relay('key', { fallback: false }).transport;
console.log(carrier);
new Relay('key', { shareTabs: true, authBatch: false, authCredentials: 'omit', cluster: 'mt1' });
new Relay('key', {
  channelAuthorization: { endpoint: '/broadcasting/auth', headersProvider: async () => ({ Authorization: 'Bearer x' }) },
  userAuthentication: { params: { tenant: 1 } },
});
new Relay('key', {
  channelAuthorization: {
    customHandler: ({ socketId, channelName }, callback) => callback(null, { auth: `${socketId}:${channelName}` }),
    transport: 'ajax',
    endpoint: '',
  },
});

const channel: Channel = relay.subscribe('private-orders');
channel.bind('shipped', (data: { id: number }) => console.log(data.id));
const room = relay.subscribe('presence-room') as PresenceChannel;
console.log(room.members.count, relay.connection.socket_id, relay.sharing === 'leader');
relay.signin();

new Echo({ broadcaster: 'pusher', client: relay }).private('orders');
new (defineRelay(Named))('key', options).disconnect();

const resuming: Resume = resume(Named, { hosts: ['relay.example.com'] });
const reload = ({ channel }: { channel: string }) => console.log(channel);
resuming.on('gap', reload).off('gap', reload);
resuming.on('gap', ({ pusher, after, reason }) => console.log(pusher.key, after?.length, reason === 'expired'));
resuming.on('resumed', ({ pusher, after }) => console.log(pusher.connection.state, after.length));
channel.bind('pusher:history_gap', (gap: HistoryGap) => console.log(gap.resumes_at));

// @ts-expect-error Hosts are needed.
resume(Named, {});
// @ts-expect-error There is no such event.
resuming.on('message', () => {});
// @ts-expect-error A key is needed.
new Relay();
// @ts-expect-error There is no such option.
new Relay('key', { authEndpiont: '/auth' });
// @ts-expect-error There is no such transport.
new Relay('key', { fallback: ['websocket'] });
// @ts-expect-error The role cannot be set.
relay.sharing = 'none';
