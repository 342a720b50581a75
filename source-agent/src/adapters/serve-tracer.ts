/**
 * Spans of what was served. The hot path only notes what it has anyway; spans are built in batches when the event loop has
 * nothing better to do.
 *
 * `serve` (kind SERVER, parent: the span in the message's TraceContext), from the arrival of the request to the frame handed to gRPC, with
 * the children `read` and `encode`. Attributes of `serve`:
 *   pagewake.vm.id          the VM
 *   pagewake.lane           "fault" or "bulk"
 *   pagewake.region         number of the region
 *   pagewake.page           first page of the frame, in the region
 *   pagewake.page.count     pages in the frame
 *   pagewake.encoding       "zero", "raw" or "lz4"
 *   pagewake.payload.bytes  bytes of payload in the frame
 *   pagewake.queue.ms       arrival of the request to read begun
 */
import { hexId, newSpanId, SpanKind, unixMs, type Telemetry } from '@pagewake/agent-kit';
import type { TraceContext } from '@pagewake/proto';
import type { Frame } from '../domain/frame-maker.ts';

export type LaneName = 'fault' | 'bulk';

interface Note {
  readonly trace: TraceContext;
  readonly lane: LaneName;
  readonly vmId: string;
  readonly region: number;
  readonly page: number;
  readonly pageCount: number;
  readonly encoding: string;
  readonly payloadBytes: number;
  readonly readMs: number;
  readonly encodeMs: number;
  /** All three `performance.now()`. */
  readonly receivedMs: number;
  readonly beganMs: number;
  readonly endedMs: number;
}

const SAMPLED = 1;
const TRACE_ID_BYTES = 16;
const SPAN_ID_BYTES = 8;
const NOTES_A_TURN = 64;

export class ServeTracer {
  readonly #telemetry: Telemetry;
  readonly #notes: Note[] = [];
  #scheduled = false;

  constructor(telemetry: Telemetry) {
    this.#telemetry = telemetry;
  }

  /** Called right after the frame was handed over. Costs nothing unless the request is sampled. */
  served(trace: TraceContext | undefined, lane: LaneName, vmId: string, frame: Frame, receivedMs: number): void {
    if (trace === undefined || (trace.flags & SAMPLED) === 0 || !this.#telemetry.enabled) return;
    if (trace.traceId.length !== TRACE_ID_BYTES || trace.spanId.length !== SPAN_ID_BYTES) return;
    this.#notes.push({
      trace,
      lane,
      vmId,
      region: frame.region,
      page: frame.firstPage,
      pageCount: frame.pageCount,
      encoding: frame.encoding,
      // Not the frame itself: its payload is a view of a buffer that is used again.
      payloadBytes: frame.payload.length,
      readMs: frame.readMs,
      encodeMs: frame.encodeMs,
      receivedMs,
      beganMs: frame.beganMs,
      endedMs: performance.now(),
    });
    this.#schedule();
  }

  /** Builds every span that is still noted, now. */
  flush(): void {
    for (const note of this.#notes.splice(0)) this.#record(note);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      for (const note of this.#notes.splice(0, NOTES_A_TURN)) this.#record(note);
      if (this.#notes.length > 0) this.#schedule();
    });
  }

  #record(note: Note): void {
    const traceId = hexId(note.trace.traceId);
    const spanId = newSpanId();
    const began = unixMs(note.beganMs);
    const wasRead = began + note.readMs;
    this.#telemetry.recordSpan({
      name: 'serve',
      kind: SpanKind.SERVER,
      traceId,
      spanId,
      parentSpanId: hexId(note.trace.spanId),
      parentIsRemote: true,
      startMs: unixMs(note.receivedMs),
      endMs: unixMs(note.endedMs),
      attributes: {
        'pagewake.vm.id': note.vmId,
        'pagewake.lane': note.lane,
        'pagewake.region': note.region,
        'pagewake.page': note.page,
        'pagewake.page.count': note.pageCount,
        'pagewake.encoding': note.encoding,
        'pagewake.payload.bytes': note.payloadBytes,
        'pagewake.queue.ms': note.beganMs - note.receivedMs,
      },
    });
    this.#child('read', traceId, spanId, began, wasRead);
    this.#child('encode', traceId, spanId, wasRead, wasRead + note.encodeMs);
  }

  #child(name: string, traceId: string, parentSpanId: string, startMs: number, endMs: number): void {
    this.#telemetry.recordSpan({
      name,
      kind: SpanKind.INTERNAL,
      traceId,
      spanId: newSpanId(),
      parentSpanId,
      startMs,
      endMs,
    });
  }
}
