// The handlers with which pusher-js authorizes channels and signs its user in.

import { isStreamId, needsWebSocket } from './over_http.js';
import { endpointAddress } from './place.js';
import { AuthFailure, checkChannel, checkUser, isRefusal, post } from './request.js';

/** Channels in one request (R-AUTHEP-10). */
const BATCH_CHANNELS_MAX = 100;

const CHANNEL_ENDPOINT = '/broadcasting/auth';
const USER_ENDPOINT = '/broadcasting/user-auth';

/** How channels are authorized, from options in the old or the new style of pusher-js: the new one wins there too. */
export function channelAuth(options) {
  const old = { ...options.auth, endpoint: options.authEndpoint, transport: options.authTransport };
  const given = options.channelAuthorization ?? old;
  return { ...given, endpoint: String(given.endpoint || CHANNEL_ENDPOINT) };
}

/** How the user signs in. What the options leave open is as for channels. */
export function userAuth(options) {
  const { endpoint, headers, headersProvider, params, paramsProvider } = channelAuth(options);
  const sibling = endpoint.replace(/(\/(apps\/[^/]+|broadcasting|pusher)\/)auth(?=$|\?)/, '$1user-auth');
  const given = { headers, headersProvider, params, paramsProvider, ...options.userAuthentication };
  return { ...given, endpoint: String(given.endpoint || (sibling === endpoint ? USER_ENDPOINT : sibling)) };
}

/**
 * The auth options for pusher-js. Handlers of the application and JSONP stay as they are; all else goes through the
 * handlers of this file. `relay` returns the client, which does not exist yet.
 */
export function authOptions(options, relay) {
  const channel = channelAuth(options);
  const user = userAuth(options);
  const result = {
    channelAuthorization: { customHandler: channelHandler(channel, options, relay) },
    userAuthentication: { customHandler: userHandler(user, options, relay) },
  };
  if (channel.customHandler) {
    result.channelAuthorization = { customHandler: observed(channel.customHandler, relay) };
  } else if (options.authorizer && !options.channelAuthorization) {
    delete result.channelAuthorization;
    result.authorizer = (...given) => {
      const authorizer = options.authorizer(...given);
      return { authorize: observed(authorizer.authorize.bind(authorizer), relay) };
    };
  } else if (channel.transport === 'jsonp') {
    result.channelAuthorization = channel;
  }
  if (user.customHandler) result.userAuthentication = { customHandler: observed(user.customHandler, relay) };
  else if (user.transport === 'jsonp') result.userAuthentication = user;
  return result;
}

/** A handler of the application, whose refusals end the sharing of tabs too (threat T105). */
function observed(handler, relay) {
  return (parameters, callback) => handler(parameters, (error, data) => {
    callback(error, data);
    endSharingIfRefused(relay(), error);
  });
}

function endSharingIfRefused(relay, error) {
  if (isRefusal(error)) relay.tabs?.goAlone(`the auth endpoint answered ${error.status}`);
}

/** Passes a failure to pusher-js. It adds a status only to errors of a class of its own, which it does not export. */
function fail(relay, emitter, callback, error) {
  if (emitter && error.status !== undefined) {
    const { emit } = emitter;
    const isPatched = Object.prototype.hasOwnProperty.call(emitter, 'emit');
    emitter.emit = (event, data, ...more) => {
      const isFailure = event === 'pusher:subscription_error' || event === 'pusher:signin_error';
      return emit.call(emitter, event, isFailure ? { ...data, ...failureOf(data, error) } : data, ...more);
    };
    try {
      callback(error, null);
    } finally {
      if (isPatched) emitter.emit = emit;
      else delete emitter.emit;
    }
  } else {
    callback(error, null);
  }
  endSharingIfRefused(relay, error);
}

function failureOf(data, { type = data.type, status }) {
  return { type, status };
}

function userHandler(auth, options, relay) {
  return async ({ socketId }, callback) => {
    const isWanted = () => relay().connection.socket_id === socketId;
    if (isStreamId(socketId)) {
      queueMicrotask(() => fail(relay(), relay().user, callback, needsWebSocket('signin()')));
      return;
    }
    let data;
    try {
      const address = endpointAddress(auth.endpoint, relay().config);
      data = checkUser(address.url, await request(address, [['socket_id', socketId]], auth, options, isWanted));
    } catch (error) {
      if (isWanted()) fail(relay(), relay().user, callback, error);
      return;
    }
    if (isWanted()) callback(null, data);
  };
}

/** R-CLIENT-5: channels that are authorized in one tick go into as few requests as possible, if the endpoint offers it. */
function channelHandler(auth, options, relay) {
  const waiting = new Map();
  return ({ socketId, channelName }, callback) => {
    if (isStreamId(socketId) && channelName.startsWith('presence-')) {
      queueMicrotask(() => fail(relay(), relay().channel(channelName), callback, needsWebSocket(channelName)));
      return;
    }
    const list = waiting.get(socketId);
    if (list) {
      list.push({ channelName, callback });
      return;
    }
    waiting.set(socketId, [{ channelName, callback }]);
    queueMicrotask(() => {
      const channels = waiting.get(socketId);
      waiting.delete(socketId);
      authorize(relay(), socketId, channels, auth, options);
    });
  };
}

function authorize(relay, socketId, channels, auth, options) {
  const callbacks = new Map();
  for (const { channelName, callback } of channels) {
    callbacks.set(channelName, [...(callbacks.get(channelName) ?? []), callback]);
  }
  // An answer for a connection that has ended is worth nothing: pusher-js has asked again for its next one.
  const isWanted = () => relay.connection.socket_id === socketId;
  const finish = (name, outcome) => {
    for (const callback of callbacks.get(name)) {
      if (!isWanted()) return;
      isolated(() => {
        // Each gets its own object: pusher-js removes the secret of an encrypted channel from it.
        if (outcome instanceof Error) fail(relay, relay.channel(name), callback, outcome);
        else callback(null, { ...outcome });
      });
    }
  };
  const names = [...callbacks.keys()];
  let address;
  try {
    address = endpointAddress(auth.endpoint, relay.config);
  } catch (error) {
    names.forEach((name) => finish(name, error));
    return;
  }
  // The channels are authorized for its next id then.
  if (address.isRelays && relay.fallback?.renews(socketId)) return;
  const size = options.authBatch ?? address.isRelays ? BATCH_CHANNELS_MAX : 1;
  for (let start = 0; start < names.length; start += size) {
    const part = names.slice(start, start + size);
    const outcomes = part.length === 1 ? single : batch;
    outcomes(address, socketId, part, auth, options, isWanted).then(
      (values) => part.forEach((name) => finish(name, checked(address, name, values))),
      (error) => part.forEach((name) => finish(name, error)),
    );
  }
}

/** An error of the application's callbacks is reported as uncaught; the other channels still get their results. */
function isolated(action) {
  try {
    action();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

function checked(address, name, values) {
  try {
    return checkChannel(address.url, name, values.get(name));
  } catch (error) {
    return error;
  }
}

async function single(address, socketId, [name], auth, options, isWanted) {
  const fields = [['socket_id', socketId], ['channel_name', name]];
  return new Map([[name, await request(address, fields, auth, options, isWanted)]]);
}

async function batch(address, socketId, names, auth, options, isWanted) {
  const fields = [['socket_id', socketId], ...names.map((name) => ['channels[]', name])];
  const { channels } = await request(address, fields, auth, options, isWanted);
  if (typeof channels !== 'object' || channels === null) {
    throw new AuthFailure(200, `${address.url} answered "channels[]" without an object "channels": set authBatch: false`);
  }
  return new Map(Object.entries(channels));
}

function request(address, fields, auth, options, isWanted) {
  return post(address, fields, auth, options.authCredentials ?? 'include', isWanted);
}
