// The ES module: Relay over the pusher-js that is installed beside it.

import Pusher from 'pusher-js';
import { defineRelay } from './src/define.js';

export const Relay = defineRelay(Pusher);
export default Relay;
