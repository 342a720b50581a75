/**
 * A lane's messages to and from the source: on a bare connection where the source has a port for that, and over gRPC where nobody of ours answers there
 * (a firewall knows only the other port). Whoever uses it need not know which of the two it is.
 */
import { sendNow } from '@pagewake/native';
import { BareClient, ErrorReason, formatAddress, parseAddress, PagewakeError, type ClientLinkOptions } from '../kit.ts';

export interface SourceStreamOptions {
  /** Of the source's gRPC: `host:port`. */
  readonly address: string;
  readonly link: ClientLinkOptions;
  /** For bare connections, on the same host; 0: there is none. */
  readonly barePort: number;
  /** Of the call that takes the same messages over gRPC. */
  readonly grpcPath: string;
  /** Has the session. */
  readonly first: Uint8Array;
  /** Told the bytes of each message, both ways. */
  readonly count: (bytes: number) => void;
}

export interface SourceStreamEvents {
  /** `message` is valid until this returns. A PagewakeError that it throws ends the stream with that error. */
  onMessage(message: Buffer): void;
  /** Once, and nothing comes after it. A source that merely went away is SOURCE_LOST. */
  onEnd(error: PagewakeError): void;
  /** It goes over gRPC, although the source has a port: why. */
  onDetour(why: string): void;
}

/** Of a page of 2 MiB or a range of 4 MiB, with all that is around it. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024 + 4096;
/** A SYN that got lost is sent again after one second. */
const ANSWER_WITHIN_MS = 2000;
/** A port that takes us and lets us go again is crowded by others, or its agent is being started anew: tried so often before it is given up. */
const TRIES = 4;
const TRY_AGAIN_MS = 100;
/** There and back, while the source's VM still runs. */
const EXERCISES = 200;
/** HTTP/2's default of 64 KiB has the source wait for this side four times a range. */
const FLOW_CONTROL_WINDOW_BYTES = 4 * 1024 * 1024;

interface Way {
  write(message: Uint8Array): void;
  close(): void;
}

export class SourceStream {
  readonly #o: SourceStreamOptions;
  readonly #events: SourceStreamEvents;
  #way: Way;
  /** What was written before the source answered, to be written again where it does not; undefined once it has. */
  #unanswered: Uint8Array[] | undefined;

  /** Connects at once; may be written to at once. */
  constructor(options: SourceStreamOptions, events: SourceStreamEvents) {
    this.#o = options;
    this.#events = events;
    options.count(options.first.length);
    if (options.barePort === 0) this.#way = this.#overGrpc(() => undefined);
    else {
      this.#unanswered = [];
      this.#way = this.#bare(options.barePort, TRIES, performance.now());
    }
  }

  /** Never waits: what can be outstanding is little. */
  write(message: Uint8Array): void {
    this.#o.count(message.length);
    this.#unanswered?.push(message);
    this.#way.write(message);
  }

  /** Ends the stream without a word to `onEnd`. */
  close(): void {
    this.#way.close();
  }

  /** @param sinceMs of the first try: all of them together may take no longer than one that is not answered */
  #bare(port: number, tries: number, sinceMs: number): BareClient {
    const { host } = parseAddress(this.#o.address, 'source address');
    const address = formatAddress({ host, port });
    const limits = {
      maxMessageBytes: MAX_MESSAGE_BYTES,
      answerWithinMs: ANSWER_WITHIN_MS,
      exercises: EXERCISES,
      sendNow,
    };
    return new BareClient(
      { address, link: this.#o.link, first: this.#o.first, ...limits },
      {
        onAnswer: () => (this.#unanswered = undefined),
        onMessage: (message) => this.#receive(message),
        onEnd: (error) => {
          if (error.reason !== ErrorReason.SOURCE_UNREACHABLE || !this.#unanswered) this.#end(error);
          else if (tries > 1 && performance.now() - sinceMs < ANSWER_WITHIN_MS / 2)
            this.#again(port, tries - 1, sinceMs);
          else this.#detour(error.message);
        },
      },
    );
  }

  #again(port: number, tries: number, sinceMs: number): void {
    const timer = setTimeout(() => {
      this.#way = this.#bare(port, tries, sinceMs);
      for (const message of this.#unanswered ?? []) this.#way.write(message);
    }, TRY_AGAIN_MS);
    // What is written meanwhile is among the unanswered.
    this.#way = { write: () => undefined, close: () => clearTimeout(timer) };
  }

  #detour(why: string): void {
    const messages = this.#unanswered ?? [];
    this.#unanswered = undefined;
    // Where gRPC does not answer either it is the link, and no word on ports is due.
    this.#way = this.#overGrpc(() => this.#events.onDetour(why));
    for (const message of messages) this.#way.write(message);
  }

  /** grpc-js, and what it brings, is loaded where it is needed: a lane's thread mostly does without. */
  #overGrpc(onConnect: () => void): Way {
    const { address, link, grpcPath: path, first } = this.#o;
    const early: Uint8Array[] = [first];
    let client: Way | undefined;
    let closed = false;
    const open = async (): Promise<void> => {
      const { StreamClient } = await import('@pagewake/agent-kit/stream-client');
      if (closed) return;
      client = new StreamClient(
        { address, link, path, windowBytes: FLOW_CONTROL_WINDOW_BYTES },
        { onConnect, onMessage: (message) => this.#receive(message), onEnd: (error) => this.#end(error) },
      );
      for (const message of early.splice(0)) client.write(message);
    };
    void open();
    return {
      write: (message) => (client === undefined ? void early.push(message) : client.write(message)),
      close: () => {
        closed = true;
        client?.close();
      },
    };
  }

  #receive(message: Buffer): void {
    this.#o.count(message.length);
    this.#events.onMessage(message);
  }

  #end(error: PagewakeError): void {
    // A source that is stopped cancels: it went away and may come back.
    const gone = error.reason === ErrorReason.CANCELLED || error.reason === ErrorReason.UNSPECIFIED;
    this.#events.onEnd(gone ? new PagewakeError(ErrorReason.SOURCE_LOST, error.message) : error);
  }
}
