// A bare uWebSockets server that implements just enough of the protocol for the load generator: handshake, subscribe, publish. It
// verifies nothing, which makes it the least that a server on uWebSockets can cost.
//
//     node uws.js PORT          publishes are parsed and sent to the subscribers
//     node uws.js PORT echo     publishes are read, and answered at once: an HTTP server that does nothing
'use strict';

const uws = require(`${process.env.PEERS}/node_modules/@trufflesuite/uws-js-unofficial`);

const port = Number(process.argv[2]);
const echoes = process.argv[3] === 'echo';
const app = uws.App();
let connections = 0;

app.ws('/app/:key', {
    idleTimeout: 0,
    sendPingsAutomatically: false,
    maxPayloadLength: 64 * 1024,
    maxBackpressure: 1024 * 1024,
    open: (socket) => {
        connections += 1;
        const data = JSON.stringify({ socket_id: `${connections}.1`, activity_timeout: 120 });
        socket.send(JSON.stringify({ event: 'pusher:connection_established', data }));
    },
    message: (socket, bytes) => {
        const message = JSON.parse(Buffer.from(bytes).toString());
        if (message.event === 'pusher:subscribe') {
            const { channel } = message.data;
            socket.subscribe(channel);
            socket.send(JSON.stringify({ event: 'pusher_internal:subscription_succeeded', channel, data: '{}' }));
        } else if (message.event === 'pusher:ping') {
            socket.send('{"event":"pusher:pong","data":"{}"}');
        }
    },
});

app.post('/apps/:id/events', (response) => {
    const parts = [];
    response.onAborted(() => {});
    if (echoes) {
        response.onData((part, isLast) => {
            if (isLast) response.writeHeader('Content-Type', 'application/json').end('{}');
        });
        return;
    }
    response.onData((part, isLast) => {
        parts.push(Buffer.from(part));
        if (!isLast) return;
        const { name, data, channel, channels } = JSON.parse(Buffer.concat(parts).toString());
        for (const each of channels ?? [channel]) {
            app.publish(each, JSON.stringify({ event: name, channel: each, data }));
        }
        response.writeHeader('Content-Type', 'application/json').end('{}');
    });
});

app.get('/*', (response) => response.end('OK'));
app.listen('127.0.0.1', port, (listening) => {
    if (!listening) process.exit(1);
    console.log('ready');
});
