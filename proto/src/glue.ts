/**
 * The one place where protobuf-es descriptors meet grpc-js: service definitions for a server, typed handlers, typed
 * clients. Knows no service by name and no error type of pagewake's; a server says through `toStatus` what a thrown
 * value means on the wire. Messages that have a codec of their own (hot/) go through that.
 */
import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type DescService,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import {
  Metadata,
  type Client as GrpcClient,
  type ClientDuplexStream,
  type ClientReadableStream,
  type MethodDefinition,
  type ServerDuplexStream,
  type ServerErrorResponse,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type ServiceError,
  type UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { HOT } from './hot/index.ts';

/** A generated service descriptor: `PageService`, …  Its `method` record has the precise types. */
export type AnyService = Pick<DescService, 'kind' | 'typeName' | 'methods' | 'file' | 'name'> & {
  readonly method: Record<string, DescMethod>;
};
type Methods<S extends AnyService> = S['method'];
type InputShape<M extends Pick<DescMethod, 'input'>> = MessageShape<M['input']>;
type OutputShape<M extends Pick<DescMethod, 'output'>> = MessageShape<M['output']>;

// ── Server ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** What a unary handler may know about its call beside the request. */
export interface CallContext {
  readonly metadata: Metadata;
  readonly peer: string;
  /** Aborted once the caller has gone away or its deadline passed. */
  readonly signal: AbortSignal;
}

/** Client streaming is absent: no service of pagewake's uses it, and `implement` refuses it. */
type Handler<M extends DescMethod> = M['methodKind'] extends 'unary'
  ? (request: InputShape<M>, context: CallContext) => OutputInit<M> | Promise<OutputInit<M>>
  : M['methodKind'] extends 'server_streaming'
    ? /** The stream ends when the promise does; a rejection becomes its status. */
      (call: ServerWritableStream<InputShape<M>, OutputShape<M>>) => void | Promise<void>
    : M['methodKind'] extends 'bidi_streaming'
      ? (call: ServerDuplexStream<InputShape<M>, OutputShape<M> | Buffer>) => void | Promise<void>
      : never;
type OutputInit<M extends DescMethod> = MessageInitShape<M['output']>;

/** One handler for every method of the service, by the method's local name (`setPaused` for `SetPaused`). */
export type Handlers<S extends AnyService> = { readonly [K in keyof Methods<S>]: Handler<Methods<S>[K]> };

/** A service and its implementation, as `grpc.Server.addService` wants them. */
export interface BoundService {
  readonly descriptor: AnyService;
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

/** Turns whatever a handler threw into a gRPC status. Must not throw. */
export type ToStatus = (error: unknown) => Partial<ServerErrorResponse>;

export function methodPath(service: AnyService, method: DescMethod): string {
  return `/${service.typeName}/${method.name}`;
}

/** What is serialized already goes out as it is. */
function serializer<D extends DescMessage>(
  schema: D,
  count?: MessageBytes,
): (message: MessageShape<D> | Buffer) => Buffer {
  const encode = HOT.get(schema.typeName)?.encode;
  return (message) => {
    const bytes = Buffer.isBuffer(message)
      ? message
      : encode === undefined
        ? toBinary(schema, message)
        : encode(message as never);
    count?.(bytes.byteLength);
    if (Buffer.isBuffer(bytes)) return bytes;
    // A view, not a copy: Buffer.from(bytes) would copy every page a second time.
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

/** `bytes` fields of the result alias the received buffer: copy what outlives the handler and is small. */
function deserializer<D extends DescMessage>(schema: D, count?: MessageBytes): (bytes: Buffer) => MessageShape<D> {
  const decode = HOT.get(schema.typeName)?.decode ?? ((bytes: Uint8Array) => fromBinary(schema, bytes));
  return (bytes) => {
    count?.(bytes.byteLength);
    return decode(bytes) as MessageShape<D>;
  };
}

type AnyMessage = MessageShape<DescMessage>;

function methodDefinition(service: AnyService, method: DescMethod): MethodDefinition<AnyMessage, AnyMessage> {
  return {
    path: methodPath(service, method),
    requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
    responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
    requestSerialize: serializer(method.input),
    requestDeserialize: deserializer(method.input),
    responseSerialize: serializer(method.output),
    responseDeserialize: deserializer(method.output),
    originalName: method.localName,
  };
}

export function serviceDefinition(service: AnyService): ServiceDefinition {
  return Object.fromEntries(service.methods.map((m) => [m.localName, methodDefinition(service, m)]));
}

/** Binds typed handlers to a service, so that a thrown error always becomes a status and never an open call. */
export function implement<S extends AnyService>(service: S, handlers: Handlers<S>, toStatus: ToStatus): BoundService {
  const byName = handlers as unknown as Record<string, (...args: never[]) => unknown>;
  const implementation: UntypedServiceImplementation = {};
  for (const method of service.methods) {
    const handler = byName[method.localName];
    if (handler === undefined) throw new TypeError(`${service.typeName} lacks a handler for ${method.name}`);
    if (method.methodKind === 'unary') {
      implementation[method.localName] = unaryHandler(method, handler.bind(handlers) as UnaryFunction, toStatus);
    } else if (method.methodKind === 'client_streaming') {
      throw new TypeError(`${service.typeName}/${method.name}: client streaming is not supported by the glue`);
    } else {
      implementation[method.localName] = streamHandler(handler.bind(handlers) as StreamFunction, toStatus);
    }
  }
  return { descriptor: service, definition: serviceDefinition(service), implementation };
}

type UnaryFunction = (request: AnyMessage, context: CallContext) => unknown;
type ServerStream = ServerWritableStream<AnyMessage, AnyMessage> | ServerDuplexStream<AnyMessage, AnyMessage>;
type StreamFunction = (call: ServerStream) => void | Promise<void>;
type UnaryCallback = (error: Partial<ServerErrorResponse> | null, value?: AnyMessage) => void;

function unaryHandler(method: DescMethod, handler: UnaryFunction, toStatus: ToStatus) {
  return (call: ServerUnaryCall<AnyMessage, AnyMessage>, callback: UnaryCallback): void => {
    const gone = new AbortController();
    call.on('cancelled', () => gone.abort());
    const context: CallContext = { metadata: call.metadata, peer: call.getPeer(), signal: gone.signal };
    void answer(method, async () => handler(call.request, context), toStatus, callback);
  };
}

async function answer(
  method: DescMethod,
  handle: () => Promise<unknown>,
  toStatus: ToStatus,
  callback: UnaryCallback,
): Promise<void> {
  let response: AnyMessage;
  try {
    response = create(method.output, (await handle()) as MessageInitShape<DescMessage>);
  } catch (error) {
    callback(toStatus(error));
    return;
  }
  callback(null, response);
}

function streamHandler(handler: StreamFunction, toStatus: ToStatus) {
  return (call: ServerStream): void => {
    // Our own failures are reported by emit('error') below, which grpc-js turns into the status. A listener of our
    // own keeps a late one (after the caller went away) from being an uncaught 'error' event.
    call.on('error', () => undefined);
    new Promise<void>((resolve) => resolve(handler(call))).then(
      () => call.end(),
      (error: unknown) => call.emit('error', toStatus(error)),
    );
  };
}

// ── Client ──────────────────────────────────────────────────────────────────────────────────────────────────────

export interface CallOptions {
  /** Aborting cancels the call, which then fails with CANCELLED. */
  readonly signal?: AbortSignal;
  /** Fails the call with DEADLINE_EXCEEDED that long after it began. Default: none. */
  readonly timeoutMs?: number;
  readonly metadata?: Metadata;
  /** Wait for a connection that is not up instead of failing with UNAVAILABLE. Default: false. */
  readonly waitForReady?: boolean;
  /** Bidirectional streams: told the size of every message, sent or received. */
  readonly count?: MessageBytes;
}

/** Gets the bytes of one serialized message, without gRPC's and HTTP/2's framing. */
export type MessageBytes = (bytes: number) => void;

type ClientMethod<M extends DescMethod> = M['methodKind'] extends 'unary'
  ? (request: MessageInitShape<M['input']>, options?: CallOptions) => Promise<OutputShape<M>>
  : M['methodKind'] extends 'server_streaming'
    ? (request: MessageInitShape<M['input']>, options?: CallOptions) => ClientReadableStream<OutputShape<M>>
    : M['methodKind'] extends 'bidi_streaming'
      ? /** `write` wants whole messages (`create(FaultsRequestSchema, …)`), or what one is serialized. */
        (options?: CallOptions) => ClientDuplexStream<InputShape<M> | Buffer, OutputShape<M>>
      : never;

/** A typed client by local method name. Errors are grpc-js `ServiceError`s; `fromServiceError` makes them typed. */
export type ServiceClient<S extends AnyService> = { readonly [K in keyof Methods<S>]: ClientMethod<Methods<S>[K]> };

/** Clients of several services may share one `channel` (a plain `grpc.Client`), which the caller closes. */
export function createClient<S extends AnyService>(service: S, channel: GrpcClient): ServiceClient<S> {
  const client: Record<string, unknown> = {};
  for (const method of service.methods) {
    const definition = methodDefinition(service, method);
    if (method.methodKind === 'unary') client[method.localName] = unaryCall(channel, method, definition);
    else if (method.methodKind === 'server_streaming') {
      client[method.localName] = (request: MessageInitShape<DescMessage>, options: CallOptions = {}) =>
        withSignal(
          channel.makeServerStreamRequest(
            definition.path,
            definition.requestSerialize,
            definition.responseDeserialize,
            create(method.input, request),
            callMetadata(options),
            grpcOptions(options),
          ),
          options.signal,
        );
    } else if (method.methodKind === 'bidi_streaming') {
      client[method.localName] = (options: CallOptions = {}) =>
        withSignal(
          channel.makeBidiStreamRequest(
            definition.path,
            serializer(method.input, options.count),
            deserializer(method.output, options.count),
            callMetadata(options),
            grpcOptions(options),
          ),
          options.signal,
        );
    }
  }
  return client as ServiceClient<S>;
}

function unaryCall(channel: GrpcClient, method: DescMethod, definition: MethodDefinition<AnyMessage, AnyMessage>) {
  return (request: MessageInitShape<DescMessage>, options: CallOptions = {}): Promise<AnyMessage> =>
    new Promise((resolve, reject) => {
      const call = channel.makeUnaryRequest(
        definition.path,
        definition.requestSerialize,
        definition.responseDeserialize,
        create(method.input, request),
        callMetadata(options),
        grpcOptions(options),
        (error: ServiceError | null, value?: AnyMessage) => {
          release();
          if (error !== null) reject(error);
          else if (value === undefined) reject(new Error(`${definition.path} answered nothing`));
          else resolve(value);
        },
      );
      const release = onAbort(options.signal, () => call.cancel());
    });
}

function callMetadata({ metadata, waitForReady }: CallOptions): Metadata {
  if (waitForReady === undefined) return metadata ?? new Metadata();
  // grpc-js carries this one in the metadata's options. A clone: the caller's may serve other calls.
  const own = metadata?.clone() ?? new Metadata();
  own.setOptions({ ...own.getOptions(), waitForReady });
  return own;
}

function grpcOptions(options: CallOptions): { deadline?: number } {
  return options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
}

interface Cancellable {
  cancel(): void;
  once(event: 'close', listener: () => void): unknown;
}

function withSignal<C extends Cancellable>(call: C, signal: AbortSignal | undefined): C {
  const release = onAbort(signal, () => call.cancel());
  call.once('close', release);
  return call;
}

/** Returns what takes the listener off again: a signal usually outlives many calls. */
function onAbort(signal: AbortSignal | undefined, cancel: () => void): () => void {
  if (signal === undefined) return () => undefined;
  if (signal.aborted) {
    // Not at once: grpc-js forgets a cancel that comes before the call has started.
    setImmediate(cancel);
    return () => undefined;
  }
  signal.addEventListener('abort', cancel, { once: true });
  return () => signal.removeEventListener('abort', cancel);
}

// ── Streams ─────────────────────────────────────────────────────────────────────────────────────────────────────

interface Writable<T> {
  write(message: T): boolean;
  once(event: 'drain' | 'close', listener: () => void): unknown;
  off(event: 'drain' | 'close', listener: () => void): unknown;
  readonly destroyed: boolean;
}

/**
 * Writes one message. `undefined`: go on at once. A promise: the peer is behind, go on when it resolves (also when the
 * stream has closed; look at `destroyed` then).
 */
export function writeMessage<T>(stream: Writable<T>, message: T): undefined | Promise<void> {
  if (stream.write(message) || stream.destroyed) return undefined;
  return new Promise((resolve) => {
    const done = (): void => {
      stream.off('drain', done);
      stream.off('close', done);
      resolve();
    };
    stream.once('drain', done);
    stream.once('close', done);
  });
}
