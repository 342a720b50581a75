/** One destination's bulk connection: ranges in, each a credit; frames out, as fast as they are taken. */
import {
  ErrorReason,
  PagewakeError,
  putMessagePrefix,
  type BareConnection,
  type BareConnectionEvents,
} from '@pagewake/agent-kit/lane';
import type { BulkRequest } from '@pagewake/proto';
import { decodeBulkRequest, putFrameHead } from '@pagewake/proto/hot';
import type { BufferPool } from '../../domain/buffer-pool.ts';
import { FrameMaker, type Frame } from '../../domain/frame-maker.ts';
import { checkRun } from '../../domain/geometry.ts';
import { Served } from '../../domain/served.ts';
import { ZeroTable } from '../../domain/zero-table.ts';
import { nativeCodec } from '../codec.ts';
import { frameHead } from '../frame-head.ts';
import { lastWord, toTold } from '../last-word.ts';
import { openShared } from '../shared-image.ts';
import type { Compressor } from './compressor.ts';
import type { FromBulk, ToBulk } from './messages.ts';
import { checkRangeSize, CHUNK_BYTES } from './range.ts';

/** In front of a payload: gRPC's prefix and a message's head. */
export const ROOM_BYTES = 128;

interface Range {
  readonly rangeId: number;
  readonly region: number;
  readonly endPage: number;
  readonly pageSizeBytes: number;
  readonly receivedMs: number;
  readonly sparse: boolean;
  nextPage: number;
}

/** The memory, once the main thread has said that the session is good. */
interface Source {
  readonly image: ReturnType<typeof openShared>;
  readonly maker: FrameMaker;
  readonly served: Served;
}

export interface BulkConnectionOptions {
  readonly stream: number;
  readonly buffers: BufferPool;
  readonly compressor: Compressor;
  post(message: FromBulk): void;
}

export class BulkConnection implements BareConnectionEvents {
  readonly #connection: BareConnection;
  readonly #o: BulkConnectionOptions;
  readonly #ranges: Range[] = [];
  /** Waits until its session is known to be good; what comes behind it is not told before. */
  #first: BulkRequest | undefined;
  #source: Source | undefined;
  #blocked = false;
  /** The gate was shut: the main thread was asked why. */
  #asked = false;
  #over = false;

  constructor(connection: BareConnection, options: BulkConnectionOptions) {
    this.#connection = connection;
    this.#o = options;
  }

  onMessage(message: Buffer): void {
    if (this.#over) return;
    this.#attempt(() => {
      const request = decoded(message);
      if (this.#source !== undefined) this.#note(request, this.#source);
      else {
        this.#first = request;
        this.#o.post({ type: 'attach', stream: this.#o.stream, session: Uint8Array.from(request.session) });
      }
    });
  }

  onRead(): void {
    this.#attempt(() => this.#serve());
  }

  onDrain(): void {
    this.#blocked = false;
    this.#attempt(() => this.#serve());
  }

  onGarbage(error: PagewakeError): void {
    this.#end(error);
  }

  onClose(): void {
    if (!this.#over) this.#o.post({ type: 'gone', stream: this.#o.stream });
    this.#finish();
  }

  /** What the main thread says. */
  onWord(message: Exclude<ToBulk, { type: 'stop' }>): void {
    switch (message.type) {
      case 'attached':
        this.#attempt(() => this.#attach(message));
        return;
      case 'go':
        this.#asked = false;
        this.#attempt(() => this.#serve());
        return;
      case 'end':
        this.#fail(new PagewakeError(message.error.reason, message.error.message, message.error.metadata));
    }
  }

  #attach({ image: share, served }: Extract<ToBulk, { type: 'attached' }>): void {
    const image = openShared(share);
    if (this.#over) {
      image.close();
      return;
    }
    // No zeros are known here: the destination knows them, and does not ask for them.
    const maker = new FrameMaker(image, new ZeroTable(image.regions, []), nativeCodec);
    this.#source = { image, maker, served: new Served(served) };
    if (this.#first !== undefined) this.#note(this.#first, this.#source);
    this.#first = undefined;
    this.#connection.admit();
  }

  #note({ range, rangeId, sparse }: BulkRequest, { image }: Source): void {
    // The first message may bring nothing but the session.
    if (range === undefined) return;
    const { pageSizeBytes } = checkRun(image.regions, range.region, range.firstPage, range.pageCount);
    checkRangeSize(range, pageSizeBytes);
    this.#ranges.push({
      rangeId,
      region: range.region,
      endPage: range.firstPage + range.pageCount,
      pageSizeBytes,
      receivedMs: performance.now(),
      sparse,
      nextPage: range.firstPage,
    });
  }

  #serve(): void {
    const source = this.#source;
    if (source === undefined) return;
    while (!this.#over && !this.#blocked) {
      const range = this.#ranges[0];
      if (range === undefined) return;
      if (!source.served.open) {
        this.#ask();
        return;
      }
      this.#serveChunk(range, source);
    }
  }

  /** The VM is not paused yet, or everything is there: the main thread knows, and answers with `go` or `end`. */
  #ask(): void {
    if (this.#asked) return;
    this.#asked = true;
    this.#o.post({ type: 'check', stream: this.#o.stream });
  }

  #serveChunk(range: Range, { maker, served }: Source): void {
    const { buffers, compressor } = this.#o;
    const buffer = buffers.take(ROOM_BYTES + Math.max(CHUNK_BYTES, range.pageSizeBytes));
    const into = buffer.subarray(ROOM_BYTES);
    const compress = (raw: Buffer): boolean => compressor.wants(() => maker.compressible(raw));
    const frame = maker.make(
      range.region,
      range.nextPage,
      range.endPage - range.nextPage,
      into,
      compress,
      range.sparse,
    );
    range.nextPage += frame.pageCount;
    const done = range.nextPage === range.endPage;
    if (done) this.#ranges.shift();
    served.add(frame.pageCount, frame.payload.length);
    this.#blocked = !this.#connection.write(this.#message(frame, range, done, buffer), () => buffers.give(buffer));
    const ownMs = performance.now() - frame.beganMs;
    const wireBytes = frame.payload.length;
    // Zeros are no work of LZ4's.
    compressor.sent(frame.encoding === 'lz4' ? frame.pageCount * range.pageSizeBytes : wireBytes, wireBytes, ownMs);
  }

  #message(frame: Frame, range: Range, done: boolean, buffer: Buffer): Buffer {
    const { payload } = frame;
    // Raw pages are where they were read. What is compressed is longer than them at no time.
    if (frame.encoding === 'lz4') buffer.set(payload, ROOM_BYTES);
    const end = ROOM_BYTES + payload.length;
    const head = frameHead(frame, range.rangeId, done, range.receivedMs);
    const start = putFrameHead(buffer, ROOM_BYTES, payload.length, head);
    return buffer.subarray(putMessagePrefix(buffer, start, end - start), end);
  }

  /** Runs a step; what it throws is the last thing that the peer is told. */
  #attempt(step: () => void): void {
    if (this.#over) return;
    try {
      step();
    } catch (error) {
      this.#end(error);
    }
  }

  /** It was this side that ended it. */
  #end(error: unknown): void {
    if (this.#over) return;
    this.#o.post({ type: 'gone', stream: this.#o.stream });
    const onBug = (bug: unknown): void =>
      this.#o.post({ type: 'bug', message: bug instanceof Error ? (bug.stack ?? bug.message) : String(bug) });
    this.#fail(toTold(error, onBug));
  }

  #fail(error: PagewakeError): void {
    if (this.#over) return;
    this.#connection.end(lastWord('bulk', error));
    this.#finish();
  }

  #finish(): void {
    this.#over = true;
    this.#source?.image.close();
    this.#source = undefined;
    this.#ranges.length = 0;
  }
}

function decoded(bytes: Buffer): BulkRequest {
  try {
    return decodeBulkRequest(bytes);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `what came is no message: ${text}`);
  }
}
