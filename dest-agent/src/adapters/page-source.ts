/**
 * The source agent as a lane sees it: one gRPC connection, one stream on it. A stream that ends, however it ends, is reported once;
 * whether that is a lost link or the end of the migration is for `isRecoverable` to say.
 */
import { create } from '@bufbuild/protobuf';
import type { Client, ClientDuplexStream } from '@grpc/grpc-js';
import {
  ErrorReason,
  formatAddress,
  fromServiceError,
  openChannel,
  PagewakeError,
  parseAddress,
  BareClient,
  StreamClient,
  type ClientLinkOptions,
} from '../kit.ts';
import {
  createClient,
  decodeBulkResponse,
  encodeBulkRequest,
  encodeFaultsRequest,
  FaultsRequestSchema,
  methodPath,
  PageService,
  type BulkResponse,
  type FaultsRequest,
  type FaultsResponse,
  type MessageBytes,
  type ServiceClient,
} from '@pagewake/proto';
import { FaultConnection, type FaultConnectionEvents } from './fault-connection.ts';

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
  onResponse(response: Response): void;
  /** The stream is over. Nothing comes after this. */
  onEnd(error: PagewakeError): void;
}

export type { BulkResponse as BulkReply, FaultsResponse as FaultsReply } from '@pagewake/proto';

const NO_SESSION = new Uint8Array(0);
/** HTTP/2's default of 64 KiB has the source wait for this side four times a range. */
const FLOW_CONTROL_WINDOW_BYTES = 4 * 1024 * 1024;

/** True where the same destination may open the source again and go on: the link broke, the source did not refuse. */
export function isRecoverable(error: PagewakeError): boolean {
  return error.reason === ErrorReason.SOURCE_LOST || error.reason === ErrorReason.SOURCE_UNREACHABLE;
}

export class SourceLink {
  readonly #address: string;
  readonly #credentials: ClientLinkOptions;
  readonly #channel: Client;
  readonly #client: ServiceClient<typeof PageService>;

  constructor(address: string, credentials: ClientLinkOptions) {
    this.#address = address;
    this.#credentials = credentials;
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

  /** @param port where the source takes faults on connections of their own */
  openFaultConnection(
    port: number,
    session: Uint8Array,
    count: MessageBytes,
    events: FaultConnectionEvents,
  ): FaultConnection {
    const { host } = parseAddress(this.#address, 'source address');
    const address = formatAddress({ host, port });
    return new FaultConnection({ address, link: this.#credentials, session, count }, events);
  }

  /** @param bulkPort where the source serves bulk; 0: at its address */
  openBulk(session: Uint8Array, bulkPort: number, count: MessageBytes, events: StreamEvents<BulkResponse>): BulkStream {
    const { host } = parseAddress(this.#address, 'source address');
    const bare = bulkPort === 0 ? undefined : formatAddress({ host, port: bulkPort });
    return new BulkStream({ bare, grpc: this.#address, link: this.#credentials }, session, count, events);
  }

  close(): void {
    this.#channel.close();
  }
}

/** A stream that ended without a typed reason: the source went away or was stopped. */
const endOf = (typed: PagewakeError): PagewakeError =>
  typed.reason === ErrorReason.CANCELLED || typed.reason === ErrorReason.UNSPECIFIED
    ? new PagewakeError(ErrorReason.SOURCE_LOST, typed.message)
    : typed;

/** The demand lane's stream. Its end is told once, and not at all where it was this side that ended it. */
export class FaultStream {
  readonly #stream: ClientDuplexStream<FaultsRequest | Buffer, FaultsResponse>;
  #over = false;

  constructor(
    stream: ClientDuplexStream<FaultsRequest | Buffer, FaultsResponse>,
    events: StreamEvents<FaultsResponse>,
  ) {
    this.#stream = stream;
    stream.on('data', (response: FaultsResponse) => {
      if (!this.#over) events.onResponse(response);
    });
    stream.on('error', (error) => this.#end(events, endOf(fromServiceError(error, ErrorReason.SOURCE_LOST))));
    stream.on('end', () =>
      this.#end(events, new PagewakeError(ErrorReason.SOURCE_LOST, 'the source ended the stream')),
    );
  }

  /** Never waits: the faults that can be outstanding are as many as there are threads in the VMM. */
  request(faults: readonly FaultOnWire[]): void {
    this.#stream.write(encodeFaultsRequest({ session: NO_SESSION, faults }));
  }

  cancel(): void {
    this.#over = true;
    this.#stream.cancel();
  }

  #end(events: StreamEvents<FaultsResponse>, error: PagewakeError): void {
    if (this.#over) return;
    this.#over = true;
    events.onEnd(error);
  }
}

const BULK_PATH = methodPath(PageService, PageService.method.bulk);

/** Where the source takes bulk: `bare` first, where it has that. */
interface BulkAddresses {
  readonly bare: string | undefined;
  readonly grpc: string;
  readonly link: ClientLinkOptions;
}

/** Beyond that a firewall is in between: bulk is served by the port that is known, too, only slower. */
const BARE_CONNECT_MS = 2000;

/** The bulk lane's stream. What `onResponse` gets is valid until it returns: the next message takes its place. */
export class BulkStream {
  readonly #at: BulkAddresses;
  readonly #count: MessageBytes;
  readonly #events: StreamEvents<BulkResponse>;
  #call: { write(message: Uint8Array): void; close(): void };
  /** What was written before a connection was there; undefined afterwards. */
  #early: Buffer[] | undefined = [];

  constructor(at: BulkAddresses, session: Uint8Array, count: MessageBytes, events: StreamEvents<BulkResponse>) {
    this.#at = at;
    this.#count = count;
    this.#events = events;
    this.#call = at.bare === undefined ? this.#overGrpc() : this.#bare(at.bare);
    this.#write(encodeBulkRequest({ session, rangeId: 0 }));
  }

  request({ rangeId, ...range }: RangeOnWire): void {
    this.#write(encodeBulkRequest({ session: NO_SESSION, rangeId, range }));
  }

  cancel(): void {
    this.#call.close();
  }

  #write(message: Buffer): void {
    this.#count(message.length);
    if (this.#early === undefined) this.#call.write(message);
    else this.#early.push(message);
  }

  #bare(address: string): BareClient {
    const onConnect = (): void => this.#connected();
    const onMessage = (message: Buffer): void => this.#receive(message);
    const onEnd = (error: PagewakeError): void => {
      if (error.reason === ErrorReason.SOURCE_UNREACHABLE) {
        const early = this.#early ?? [];
        this.#call = this.#overGrpc();
        for (const message of early) this.#call.write(message);
      } else this.#events.onEnd(endOf(error));
    };
    const options = { address, link: this.#at.link, connectTimeoutMs: BARE_CONNECT_MS };
    return new BareClient(options, { onConnect, onMessage, onEnd });
  }

  #overGrpc(): StreamClient {
    this.#early = undefined;
    return new StreamClient(
      { address: this.#at.grpc, link: this.#at.link, path: BULK_PATH, windowBytes: FLOW_CONTROL_WINDOW_BYTES },
      {
        onMessage: (message) => this.#receive(message),
        onEnd: (error) => this.#events.onEnd(endOf(error)),
      },
    );
  }

  #connected(): void {
    const early = this.#early ?? [];
    this.#early = undefined;
    for (const message of early) this.#call.write(message);
  }

  #receive(message: Buffer): void {
    this.#count(message.length);
    const response = decoded(message);
    if (response.error === undefined) this.#events.onResponse(response);
    else throw new PagewakeError(response.error.reason, response.error.message, response.error.metadata);
  }
}

function decoded(message: Buffer): BulkResponse {
  try {
    return decodeBulkResponse(message);
  } catch (error) {
    const text = `what came is no message: ${error instanceof Error ? error.message : String(error)}`;
    throw new PagewakeError(ErrorReason.SOURCE_LOST, text);
  }
}

/** What the lanes use of their streams. */
export type FaultRequests = Pick<FaultStream, 'request' | 'cancel'>;
export type BulkRequests = Pick<BulkStream, 'request' | 'cancel'>;
