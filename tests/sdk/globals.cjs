// Loaded before every script. Node 18 has the Web Crypto API, which pusher-http-edge uses, but not as a global.
globalThis.crypto ??= require('node:crypto').webcrypto;
