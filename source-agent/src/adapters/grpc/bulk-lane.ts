/**
 * The bulk lane: ranges up, each a credit; frames down, at most one chunk a turn of the event loop, so that a fault that arrives
 * meanwhile waits for one chunk and not for a range.
 */
import { create } from '@bufbuild/protobuf';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { BulkResponseSchema, type BulkRequest, type BulkResponse, type TraceContext } from '@pagewake/proto';
import { checkRun } from '../../domain/geometry.ts';
import type { Session } from '../../domain/session.ts';
import type { ServeTracer } from '../serve-tracer.ts';
import { checkRangeSize, CHUNK_BYTES } from '../bulk/range.ts';
import { Lane, type LaneContext } from './lane.ts';
import { frameMessage } from './wire.ts';

export type Compression = 'auto' | 'off' | 'lz4';

export interface BulkLaneOptions {
  readonly compression: Compression;
  readonly tracer: ServeTracer;
}

/** A range in work. */
interface Work {
  readonly rangeId: number;
  readonly region: number;
  readonly endPage: number;
  readonly pageSizeBytes: number;
  readonly receivedMs: number;
  readonly trace: TraceContext | undefined;
  readonly sparse: boolean;
  nextPage: number;
  /** Undefined: not known yet, ask the first data. */
  compress: boolean | undefined;
}

export class BulkLane extends Lane<BulkRequest, BulkResponse> {
  readonly #options: BulkLaneOptions;
  readonly #ranges: Work[] = [];
  #turnAsked = false;

  constructor(call: ServerDuplexStream<BulkRequest, BulkResponse>, context: LaneContext, options: BulkLaneOptions) {
    super(call, context);
    this.#options = options;
  }

  protected override accept(request: BulkRequest, { vm }: Session, receivedMs: number): void {
    const { range } = request;
    // The first message may bring nothing but the session.
    if (range === undefined) return;
    const { pageSizeBytes } = checkRun(vm.regions, range.region, range.firstPage, range.pageCount);
    checkRangeSize(range, pageSizeBytes);
    this.#ranges.push({
      rangeId: request.rangeId,
      region: range.region,
      endPage: range.firstPage + range.pageCount,
      pageSizeBytes,
      receivedMs,
      trace: request.trace,
      sparse: request.sparse,
      nextPage: range.firstPage,
      compress: this.#options.compression === 'auto' ? undefined : this.#options.compression === 'lz4',
    });
  }

  protected override get idle(): boolean {
    return this.#ranges.length === 0;
  }

  /** Asks for a turn rather than serving at once: the poll phase in between is where faults come in. */
  protected override serve(): void {
    if (this.#turnAsked || this.idle || !this.ready) return;
    this.#turnAsked = true;
    setImmediate(() => {
      this.#turnAsked = false;
      this.attempt(() => {
        const work = this.#ranges[0];
        if (work === undefined || !this.ready) return;
        this.#serveChunk(work);
        this.serve();
      });
    });
  }

  #serveChunk(work: Work): void {
    const { vm, maker } = this.checkServable();
    const buffer = this.context.buffers.take(Math.max(CHUNK_BYTES, work.pageSizeBytes));
    const pagesLeft = work.endPage - work.nextPage;
    const compress = work.compress ?? ((raw: Buffer) => (work.compress = maker.compressible(raw)));
    const frame = maker.make(work.region, work.nextPage, pagesLeft, buffer, compress, work.sparse);
    work.nextPage += frame.pageCount;
    const rangeDone = work.nextPage === work.endPage;
    if (rangeDone) this.#ranges.shift();
    const message = create(BulkResponseSchema, {
      rangeId: work.rangeId,
      frame: frameMessage(frame, work.receivedMs),
      rangeDone,
    });
    this.send(message, vm, frame, buffer);
    this.#options.tracer.served(work.trace, 'bulk', vm.vmId, frame, work.receivedMs);
  }
}
