import PusherImport, { Options } from 'pusher-js';

/** With `node16` or `nodenext`, TypeScript takes a default import of pusher-js for its module, and else for its class. */
export type PusherClass = typeof PusherImport extends { default: infer Class } ? Class : typeof PusherImport;
declare const Pusher: PusherClass;

/** Headers and parameters of the requests to an auth endpoint. Providers are called for each request. */
export interface RelayAuthOptions {
  headers?: Record<string, string | null | undefined>;
  headersProvider?: () => Record<string, string | null | undefined> | Promise<Record<string, string | null | undefined>>;
  params?: Record<string, string | number | boolean>;
  paramsProvider?: () => Record<string, string | number | boolean> | Promise<Record<string, string | number | boolean>>;
}

/** An auth endpoint in the new style of pusher-js, of which each part may be left out. */
export interface RelayEndpointOptions extends RelayAuthOptions {
  endpoint?: string;
  transport?: 'ajax' | 'jsonp';
}

type ChannelHandler = NonNullable<Extract<Options['channelAuthorization'], { customHandler: unknown }>>;
type UserHandler = NonNullable<Extract<Options['userAuthentication'], { customHandler: unknown }>>;

type Replaced = 'auth' | 'channelAuthorization' | 'cluster' | 'userAuthentication';

/** What takes the place of a WebSocket: server-sent events, and long polling. */
export type RelayFallbackTransport = 'sse' | 'poll';

export interface RelayFallbackOptions {
  /** Which may be used; the first one is tried first. Default: both. */
  transports?: RelayFallbackTransport[];
  /** Milliseconds for a WebSocket, or a stream, to say something. Default: 5000. */
  timeout?: number;
  /** Milliseconds after which a WebSocket is tried again; doubled each time, up to 5 minutes. Default: 60000. */
  retryInterval?: number;
}

/** The options of pusher-js, all of them optional, and those of Relay. */
export interface RelayOptions extends Partial<Omit<Options, Replaced>> {
  /** Ignored: Relay has no clusters. */
  cluster?: string;
  auth?: RelayAuthOptions;
  channelAuthorization?: RelayEndpointOptions | ChannelHandler;
  userAuthentication?: RelayEndpointOptions | UserHandler;
  /** Authorize up to 100 channels in one request. Default: if the endpoint is Relay's own. */
  authBatch?: boolean;
  /** Whether requests to auth endpoints include cookies, as for `fetch`. Default: `include`. */
  authCredentials?: RequestCredentials;
  /** Share one connection among the tabs of one user, whom `{ user: id }` names. Default: false. */
  shareTabs?: boolean | { user: string | number | null | undefined };
  /** Whether channels are read over HTTP where WebSockets are blocked, and how. Default: true. */
  fallback?: boolean | RelayFallbackTransport[] | RelayFallbackOptions;
}

export declare class Relay extends Pusher {
  constructor(key: string, options?: RelayOptions);
  /** The part of this tab in a shared connection; `none` on a connection of its own, or without one. */
  readonly sharing: 'leader' | 'follower' | 'none';
  /** What carries the connection of this tab; undefined without one, and for a follower. */
  readonly transport: 'websocket' | RelayFallbackTransport | undefined;
}

export default Relay;
