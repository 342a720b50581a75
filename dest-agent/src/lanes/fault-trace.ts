/**
 * Which faults are traced, and what is kept of them until the main thread makes spans of it. Sampling is decided before anything is
 * built, and nothing of the tracing library is on this thread.
 */
import { monotonicMs } from '../adapters/ledger.ts';
import type { FaultsReply } from '../adapters/page-source.ts';
import { newSpanId, newSpanIdBytes, unixMs } from '../kit.ts';
import type { FaultRecord, TraceIds } from './messages.ts';
import type { FaultTrace, PendingFault } from './pending.ts';

const FLUSH_INTERVAL_MS = 200;
/** Records that wait for a flush; beyond it the newest are dropped rather than let a burst grow the heap. */
const MAX_RECORDS = 4096;

export interface FaultResult {
  readonly call: string;
  readonly encoding: string;
  readonly reply: FaultsReply;
}

/** Called once the page is in place. */
export type TracedInstall = (installedAtMs: number) => void;

type SourcePart = Pick<
  FaultRecord,
  'call' | 'encoding' | 'payloadBytes' | 'sourceQueueNs' | 'sourceReadNs' | 'sourceEncodeNs'
>;

const CLOCKS_WITHIN_MS = 0.1;
const CLOCK_TRIES = 5;

/** From the clock of the kernel's events to the wall clock; read again where the thread lost its core between the two, or spans would lie beside those of the source. */
function unixOffset(): number {
  let best = { offsetMs: 0, withinMs: Number.POSITIVE_INFINITY };
  for (let tries = 0; tries < CLOCK_TRIES && best.withinMs > CLOCKS_WITHIN_MS; tries++) {
    const beforeMs = monotonicMs();
    const unix = unixMs();
    const withinMs = monotonicMs() - beforeMs;
    if (withinMs < best.withinMs) best = { offsetMs: unix - beforeMs, withinMs };
  }
  return best.offsetMs;
}

export class FaultTracer {
  readonly #ratio: number;
  readonly #trace: TraceIds;
  readonly #traceIdBytes: Uint8Array;
  readonly #flush: (records: readonly FaultRecord[]) => void;
  #records: FaultRecord[] = [];
  #timer: NodeJS.Timeout | undefined;

  constructor(ratio: number, trace: TraceIds, flush: (records: readonly FaultRecord[]) => void) {
    this.#ratio = trace.sampled ? ratio : 0;
    this.#trace = trace;
    this.#traceIdBytes = Buffer.from(trace.traceId, 'hex');
    this.#flush = flush;
  }

  /** Ids for a fault: every one has a context of its own, few are sampled. A parent that came with a stage-2 request goes before the ratio. */
  begin(parent: TraceIds | undefined): FaultTrace {
    const under = parent ?? this.#trace;
    const sampled = parent ? parent.sampled : this.#ratio > 0 && Math.random() < this.#ratio;
    return {
      sampled,
      traceId: under.traceId,
      parentSpanId: under.spanId,
      // Never sent, so not needed where nothing is recorded.
      faultSpanId: sampled ? newSpanId() : '',
      traceIdBytes: parent ? Buffer.from(parent.traceId, 'hex') : this.#traceIdBytes,
      requestSpanId: newSpanIdBytes(),
    };
  }

  /**
   * Notes all of a sampled fault but its end, which it returns.
   * @param times milliseconds of the monotonic clock
   */
  note(
    pending: PendingFault,
    { call, encoding, reply: { frame } }: FaultResult,
    times: { readonly receivedAtMs: number; readonly verifiedAtMs: number },
  ): TracedInstall {
    // A view of a buffer that the next message takes.
    const { payload, timings } = frame ?? {};
    const result = {
      call,
      encoding,
      payloadBytes: payload?.length ?? 0,
      sourceQueueNs: timings?.queueNs ?? 0,
      sourceReadNs: timings?.readNs ?? 0,
      sourceEncodeNs: timings?.encodeNs ?? 0,
    };
    return (installedAtMs) => this.#end(pending, result, { ...times, installedAtMs });
  }

  #end(
    pending: PendingFault,
    result: SourcePart,
    times: { readonly receivedAtMs: number; readonly verifiedAtMs: number; readonly installedAtMs: number },
  ): void {
    const waiter = pending.waiters[0];
    if (!waiter || this.#records.length >= MAX_RECORDS) return;
    const unixOffsetMs = unixOffset();
    this.#records.push({
      traceId: pending.trace.traceId,
      parentSpanId: pending.trace.parentSpanId,
      faultSpanId: pending.trace.faultSpanId,
      requestSpanId: Buffer.from(pending.trace.requestSpanId).toString('hex'),
      ...result,
      region: pending.region.index,
      page: pending.page,
      origin: waiter.origin,
      threadId: waiter.threadId,
      readAtMs: waiter.readAtMs + unixOffsetMs,
      requestedAtMs: pending.requestedAtMs + unixOffsetMs,
      receivedAtMs: times.receivedAtMs + unixOffsetMs,
      verifiedAtMs: times.verifiedAtMs + unixOffsetMs,
      installedAtMs: times.installedAtMs + unixOffsetMs,
    });
    this.#timer ??= setTimeout(() => this.flush(), FLUSH_INTERVAL_MS);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#records.length === 0) return;
    const records = this.#records;
    this.#records = [];
    this.#flush(records);
  }
}
