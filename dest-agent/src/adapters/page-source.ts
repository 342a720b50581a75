/**
 * The source agent as a lane sees it: one stream of typed messages. A stream that ends, however it ends, is reported once;
 * whether that is a lost link or the end of the migration is for `isRecoverable` to say.
 */
import type { BulkResponse, FaultsResponse, MessageBytes } from '@pagewake/proto';
import {
  decodeBulkResponse,
  decodeFaultsResponse,
  encodeBulkRequest,
  encodeFaultsRequest,
  GRPC_PATH,
} from '@pagewake/proto/hot';
import { ErrorReason, messageOf, PagewakeError, type ClientLinkOptions } from '../kit.ts';
import { SourceStream } from './source-stream.ts';

export interface FaultOnWire {
  readonly faultId: number;
  readonly region: number;
  readonly page: number;
  /** Not 0: neighbours from `page` on that nobody waits for yet. */
  readonly pageCount: number;
  readonly trace?: { readonly traceId: Uint8Array; readonly spanId: Uint8Array; readonly flags: number };
}

export interface RangeOnWire {
  readonly rangeId: number;
  readonly region: number;
  readonly firstPage: number;
  readonly pageCount: number;
}

export interface StreamEvents<Response> {
  /** What it gets is valid until it returns: the next message takes its place. */
  onResponse(response: Response): void;
  /** The stream is over. Nothing comes after this. */
  onEnd(error: PagewakeError): void;
  /** It goes over gRPC, although the source has a port of its own for it: why. */
  onDetour(why: string): void;
}

/** A lane's stream, which connects at once and may be asked at once. */
interface Requests<Request> {
  request(request: Request): void;
  /** Ends it without a word to `onEnd`. */
  cancel(): void;
}

export type FaultRequests = Requests<readonly FaultOnWire[]>;
export type BulkRequests = Requests<RangeOnWire>;
export type { BulkResponse as BulkReply, FaultsResponse as FaultsReply } from '@pagewake/proto';

const NO_SESSION = new Uint8Array(0);

/**
 * True where the same destination may open the source again and go on: the link broke, or the agent there is another one by now (a lane that comes back
 * before anybody has missed the first one finds it). The source did not refuse.
 */
export function isRecoverable({ reason }: PagewakeError): boolean {
  return (
    reason === ErrorReason.SOURCE_LOST ||
    reason === ErrorReason.SOURCE_UNREACHABLE ||
    reason === ErrorReason.UNKNOWN_SESSION
  );
}

/** How one lane's messages are read and written. */
interface Codec<Request, Response> {
  readonly grpcPath: string;
  first(session: Uint8Array): Uint8Array;
  encode(request: Request): Uint8Array;
  decode(message: Uint8Array): Response;
}

const FAULTS: Codec<readonly FaultOnWire[], FaultsResponse> = {
  grpcPath: GRPC_PATH.faults,
  first: (session) => encodeFaultsRequest({ session, faults: [] }),
  encode: (faults) => encodeFaultsRequest({ session: NO_SESSION, faults }),
  decode: decodeFaultsResponse,
};

const BULK: Codec<RangeOnWire, BulkResponse> = {
  grpcPath: GRPC_PATH.bulk,
  first: (session) => encodeBulkRequest({ session, rangeId: 0 }),
  encode: ({ rangeId, ...range }) => encodeBulkRequest({ session: NO_SESSION, rangeId, range, sparse: true }),
  decode: decodeBulkResponse,
};

export class SourceLink {
  readonly #address: string;
  readonly #credentials: ClientLinkOptions;

  constructor(address: string, credentials: ClientLinkOptions) {
    this.#address = address;
    this.#credentials = credentials;
  }

  /** @param port where the source takes faults on connections of their own; 0: only over gRPC */
  openFaults(
    session: Uint8Array,
    port: number,
    count: MessageBytes,
    events: StreamEvents<FaultsResponse>,
  ): FaultRequests {
    return this.#open(FAULTS, session, port, count, events);
  }

  /** @param port where the source serves bulk on connections of their own; 0: only over gRPC */
  openBulk(session: Uint8Array, port: number, count: MessageBytes, events: StreamEvents<BulkResponse>): BulkRequests {
    return this.#open(BULK, session, port, count, events);
  }

  #open<Request, Response extends FaultsResponse | BulkResponse>(
    codec: Codec<Request, Response>,
    session: Uint8Array,
    barePort: number,
    count: MessageBytes,
    events: StreamEvents<Response>,
  ): Requests<Request> {
    const { grpcPath } = codec;
    const first = codec.first(session);
    const stream = new SourceStream(
      { address: this.#address, link: this.#credentials, barePort, grpcPath, first, count },
      {
        onMessage: (message) => events.onResponse(taken(codec, message)),
        onEnd: (error) => events.onEnd(error),
        onDetour: (why) => events.onDetour(why),
      },
    );
    return {
      request: (request) => stream.write(codec.encode(request)),
      cancel: () => stream.close(),
    };
  }
}

/** @throws PagewakeError what the source says last */
function taken<Response extends FaultsResponse | BulkResponse>(
  codec: Codec<never, Response>,
  message: Buffer,
): Response {
  let response: Response;
  try {
    response = codec.decode(message);
  } catch (error) {
    throw new PagewakeError(ErrorReason.SOURCE_LOST, `what came is no message: ${messageOf(error)}`);
  }
  const { error } = response;
  if (error) throw new PagewakeError(error.reason, error.message, error.metadata);
  return response;
}
