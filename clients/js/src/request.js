// One request to an auth endpoint, and the checks of its answer (R-CLIENT-4, R-CLIENT-6).

const RETRIES_MAX = 4;
const RETRY_DELAY_MS_MAX = 30_000;

/** A failure of an auth endpoint. Its status is that of the answer, or 0 without one. */
export class AuthFailure extends Error {
  constructor(status, message) {
    super(message);
    this.name = 'AuthFailure';
    this.status = status;
  }
}

/** True for an answer that says that this user may not, or is not signed in any more. */
export function isRefusal(error) {
  return error != null && (error.status === 401 || error.status === 403 || error.status === 419);
}

/**
 * Posts a form and returns the JSON object of the answer, which must have status 200.
 *
 * `address` is that of `endpointAddress`; `auth` holds `headers`, `params` and their providers as pusher-js has them.
 * Relay limits how many channels a socket asks for at once (R-AUTHEP-8), so its own endpoint is asked again after the
 * time that it names; `isWanted` says whether the answer still matters.
 */
export async function post(address, fields, auth, credentials, isWanted) {
  for (let retries = 0; ; retries += 1) {
    const response = await send(address.url, fields, auth, credentials);
    const isBusy = response.status === 429 || response.status === 503;
    if (!isBusy || !address.isRelays || retries === RETRIES_MAX || !isWanted()) return decode(address.url, response);
    const seconds = Number(response.headers.get('Retry-After')) || 2 ** retries;
    await new Promise((resolve) => setTimeout(resolve, Math.min(seconds * 1000, RETRY_DELAY_MS_MAX)));
  }
}

async function send(url, fields, auth, credentials) {
  const headers = new Headers({ 'Content-Type': 'application/x-www-form-urlencoded', Accept: 'application/json' });
  const given = { ...auth.headers, ...(await auth.headersProvider?.()) };
  for (const [name, value] of Object.entries(given)) {
    if (value != null) headers.set(name, value);
  }
  const parameters = { ...auth.params, ...(await auth.paramsProvider?.()) };
  const body = [...fields, ...Object.entries(parameters)].map((pair) => pair.map(encodeURIComponent).join('=')).join('&');
  try {
    // A redirect would carry the headers to an origin that nobody configured (threat T56).
    return await fetch(url, { method: 'POST', headers, body, credentials, redirect: 'manual', cache: 'no-store' });
  } catch (error) {
    throw new AuthFailure(0, `No answer from ${shown(url)}: ${error.message}. If it runs on another origin, it must ` +
      `allow this one by CORS${credentials === 'include' ? ', with credentials' : ''}`);
  }
}

async function decode(url, response) {
  const text = await response.text().catch(() => '');
  if (response.type === 'opaqueredirect' || (response.status >= 300 && response.status < 400)) {
    throw new AuthFailure(response.status, `${shown(url)} redirected the request, perhaps to a login page; an auth ` +
      'endpoint answers it itself');
  }
  const value = parse(text);
  if (response.status !== 200) {
    const reason = typeof value?.message === 'string' ? `: ${value.message}` : '';
    throw new AuthFailure(response.status, `${shown(url)} answered ${response.status}${reason}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new AuthFailure(200, `${shown(url)} answered 200 with ${described(text)} in place of a JSON object with ` +
      '"auth"; an endpoint that does not allow a channel answers 403');
  }
  return value;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function described(text) {
  if (text.trim() === '') return 'an empty body';
  if (/^\s*</.test(text)) return 'an HTML page';
  return `"${text.slice(0, 100)}"`;
}

/** A URL without its query, for messages. */
function shown(url) {
  return url.split('?')[0];
}

/** Checks the authorization of a channel that an endpoint returned. */
export function checkChannel(url, name, value) {
  if (value === undefined) throw new AuthFailure(200, `${shown(url)} left ${name} out of its answer`);
  if (typeof value?.status === 'number') {
    const reason = value.message ?? value.error;
    throw new AuthFailure(value.status, `${shown(url)} answered ${value.status} for ${name}${reason ? `: ${reason}` : ''}`);
  }
  checkString(url, name, value, 'auth');
  if (value.channel_data != null) {
    checkString(url, name, value, 'channel_data');
    if (typeof parse(value.channel_data) !== 'object') {
      throw new AuthFailure(200, `${shown(url)} answered for ${name} with a "channel_data" that is not JSON`);
    }
  }
  return value;
}

/** Checks the authentication of a user that an endpoint returned. */
export function checkUser(url, value) {
  checkString(url, 'the user', value, 'auth');
  checkString(url, 'the user', value, 'user_data');
  return value;
}

function checkString(url, subject, value, member) {
  if (typeof value?.[member] === 'string' && value[member] !== '') return;
  throw new AuthFailure(200, `${shown(url)} answered 200 for ${subject} without a string "${member}"`);
}
