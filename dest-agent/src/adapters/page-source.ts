/**
 * The source agent as a lane sees it: one gRPC connection, one stream on it. A stream that ends, however it ends, is reported once;
 * whether that is a lost link or the end of the migration is for `isRecoverable` to say.
 */
import { create } from '@bufbuild/protobuf';
import type { Client, ClientDuplexStream } from '@grpc/grpc-js';
import { ErrorReason, PagewakeError, fromServiceError, openChannel, type ClientLinkOptions } from '../kit.ts';
import {
  BulkRequestSchema,
  createClient,
  FaultsRequestSchema,
  PageService,
  type BulkRequest,
  type BulkResponse,
  type FaultsRequest,
  type FaultsResponse,
  type MessageBytes,
  type ServiceClient,
} from '@pagewake/proto';

export interface FaultOnWire {
  readonly faultId: number;
  readonly region: number;
  readonly page: number;
  readonly trace: { readonly traceId: Uint8Array; readonly spanId: Uint8Array; readonly sampled: boolean };
}

export interface RangeOnWire {
  readonly rangeId: number;
  readonly region: number;
  readonly firstPage: number;
  readonly pageCount: number;
}

export interface StreamEvents<Response> {
  onResponse(response: Response): void;
  /** The stream is over. Nothing comes after this. */
  onEnd(error: PagewakeError): void;
}

export type { BulkResponse as BulkReply, FaultsResponse as FaultsReply } from '@pagewake/proto';

const SAMPLED = 1;
/** HTTP/2's default of 64 KiB has the source wait for this side four times a range. */
const FLOW_CONTROL_WINDOW_BYTES = 4 * 1024 * 1024;

/** True where the same destination may open the source again and go on: the link broke, the source did not refuse. */
export function isRecoverable(error: PagewakeError): boolean {
  return error.reason === ErrorReason.SOURCE_LOST || error.reason === ErrorReason.SOURCE_UNREACHABLE;
}

export class SourceLink {
  readonly #channel: Client;
  readonly #client: ServiceClient<typeof PageService>;

  constructor(address: string, credentials: ClientLinkOptions) {
    this.#channel = openChannel(address, credentials, { 'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES });
    this.#client = createClient(PageService, this.#channel);
  }

  /** Resolves once the connection is up. @throws PagewakeError SOURCE_UNREACHABLE */
  async connect(timeoutMs: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#channel.waitForReady(Date.now() + timeoutMs, (error) => {
        if (error)
          reject(
            new PagewakeError(ErrorReason.SOURCE_UNREACHABLE, `the source agent does not answer: ${error.message}`),
          );
        else resolve();
      });
    });
  }

  openFaults(session: Uint8Array, count: MessageBytes, events: StreamEvents<FaultsResponse>): FaultStream {
    const stream = this.#client.faults({ waitForReady: true, count });
    stream.write(create(FaultsRequestSchema, { session }));
    return new FaultStream(stream, events);
  }

  openBulk(session: Uint8Array, count: MessageBytes, events: StreamEvents<BulkResponse>): BulkStream {
    const stream = this.#client.bulk({ waitForReady: true, count });
    stream.write(create(BulkRequestSchema, { session }));
    return new BulkStream(stream, events);
  }

  close(): void {
    this.#channel.close();
  }
}

/** What both streams have: an end that is told once, and not at all where it was this side that ended it. */
abstract class LaneStream<Request, Response> {
  protected readonly stream: ClientDuplexStream<Request, Response>;
  #over = false;

  constructor(stream: ClientDuplexStream<Request, Response>, events: StreamEvents<Response>) {
    this.stream = stream;
    stream.on('data', (response: Response) => {
      if (!this.#over) events.onResponse(response);
    });
    stream.on('error', (error) => {
      const typed = fromServiceError(error, ErrorReason.SOURCE_LOST);
      // A stream that the source cancelled has no typed reason: the source went away or was stopped.
      const lost = typed.reason === ErrorReason.CANCELLED || typed.reason === ErrorReason.UNSPECIFIED;
      this.#end(events, lost ? new PagewakeError(ErrorReason.SOURCE_LOST, typed.message) : typed);
    });
    stream.on('end', () =>
      this.#end(events, new PagewakeError(ErrorReason.SOURCE_LOST, 'the source ended the stream')),
    );
  }

  cancel(): void {
    this.#over = true;
    this.stream.cancel();
  }

  #end(events: StreamEvents<Response>, error: PagewakeError): void {
    if (this.#over) return;
    this.#over = true;
    events.onEnd(error);
  }
}

/** The demand lane's stream. */
export class FaultStream extends LaneStream<FaultsRequest, FaultsResponse> {
  /** Never waits: the faults that can be outstanding are as many as there are threads in the VMM. */
  request(faults: readonly FaultOnWire[]): void {
    this.stream.write(
      create(FaultsRequestSchema, {
        faults: faults.map(({ trace: { traceId, spanId, sampled }, ...fault }) => ({
          ...fault,
          trace: { traceId, spanId, flags: sampled ? SAMPLED : 0 },
        })),
      }),
    );
  }
}

/** The bulk lane's stream. */
export class BulkStream extends LaneStream<BulkRequest, BulkResponse> {
  request(range: RangeOnWire): void {
    const { rangeId, ...run } = range;
    this.stream.write(create(BulkRequestSchema, { rangeId, range: run }));
  }
}

/** What the lanes use of their streams. */
export type FaultRequests = Pick<FaultStream, 'request' | 'cancel'>;
export type BulkRequests = Pick<BulkStream, 'request' | 'cancel'>;
