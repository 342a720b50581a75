/** The orchestrator's part of a migration's trace: the root span `migrate`, and a child for each step (docs/telemetry.md). */
import {
  context,
  isSpanContextValid,
  SpanKind,
  SpanStatusCode,
  trace,
  type Attributes,
  type Context,
  type Span,
  type Tracer,
} from '@opentelemetry/api';
import { messageOf } from '@pagewake/agent-kit';

/** What `StartRequest.trace` takes. */
export interface WireTrace {
  readonly traceId: Uint8Array;
  readonly spanId: Uint8Array;
  readonly flags: number;
}

export class MigrationTrace {
  readonly #tracer: Tracer;
  readonly #root: Span;
  readonly #context: Context;

  /** Under whatever span is active where `migrate` was called. */
  constructor(tracer: Tracer) {
    this.#tracer = tracer;
    this.#root = tracer.startSpan('migrate', { kind: SpanKind.INTERNAL });
    this.#context = trace.setSpan(context.active(), this.#root);
  }

  /** 32 hex digits; undefined without tracing. */
  get traceId(): string | undefined {
    const ids = this.#root.spanContext();
    return isSpanContextValid(ids) ? ids.traceId : undefined;
  }

  /** Undefined without tracing: then the destination, if it traces, starts a trace of its own. */
  get wire(): WireTrace | undefined {
    const ids = this.#root.spanContext();
    if (!isSpanContextValid(ids)) return undefined;
    return { traceId: fromHex(ids.traceId), spanId: fromHex(ids.spanId), flags: ids.traceFlags };
  }

  annotate(attributes: Attributes): void {
    this.#root.setAttributes(attributes);
  }

  async child<T>(name: string, work: () => Promise<T>): Promise<T> {
    const span = this.#tracer.startSpan(name, { kind: SpanKind.INTERNAL }, this.#context);
    try {
      return await work();
    } catch (error) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: messageOf(error) });
      throw error;
    } finally {
      span.end();
    }
  }

  end(error?: unknown): void {
    if (error !== undefined) this.#root.setStatus({ code: SpanStatusCode.ERROR, message: messageOf(error) });
    this.#root.end();
  }
}

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
