/**
 * Tracing. On only when the standard variables ask for it; OTLP's protocol, endpoint, sampler and the rest are read by the SDK
 * itself (default protocol: the standard's, http/protobuf). Spans of page faults are made after the fact from ids that were on the wire
 * already and from times that were taken on the hot path, which itself does no more than read a clock.
 */
import {
  diag,
  DiagLogLevel,
  ROOT_CONTEXT,
  trace,
  TraceFlags,
  type Attributes,
  type HrTime,
  type Link,
  type SpanKind,
  type SpanStatus,
  type Tracer,
} from '@opentelemetry/api';
import type { NodeSDK, NodeSDKConfiguration } from '@opentelemetry/sdk-node';
import type { Logger } from './log.ts';

export { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { newSpanId, newTraceId } from './random-ids.ts';

/** A span that is over. */
export interface SpanRecord {
  readonly name: string;
  readonly kind: SpanKind;
  /** 32 and 16 lower-case hex digits; see `hexId`. */
  readonly traceId: string;
  readonly spanId: string;
  /** Absent: a root span, whose sampling the sampler decides. Present: it is there, so the trace is sampled. */
  readonly parentSpanId?: string;
  /** The parent is another process's. Default: false. */
  readonly parentIsRemote?: boolean;
  /** Unix time, with a fraction. An end before the start counts as the start. */
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes?: Attributes;
  readonly status?: SpanStatus;
  readonly links?: readonly Link[];
}

export interface Telemetry {
  /** False: nothing is recorded, so nothing need be measured or built. */
  readonly enabled: boolean;
  /** What the configured sampler says of a trace that would start now with this id. */
  sampleRoot(traceId: string, name: string): boolean;
  recordSpan(span: SpanRecord): void;
  /** For spans of the ordinary kind. A no-op tracer when disabled. */
  readonly tracer: Tracer;
  /** Sends what is left, and stops. Failures are logged, not thrown. Calling it again gives the same promise. */
  shutdown(): Promise<void>;
}

export interface TelemetryOptions {
  /** `service.name` unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says another. */
  readonly serviceName: string;
  readonly log: Logger;
  /** For tests: takes the place of what the environment asks for, and switches tracing on. */
  readonly traceExporter?: NodeSDKConfiguration['traceExporter'];
}

/** Spans come in bursts of thousands; the SDK's own default of 2048 drops them. Its variable still wins. */
const DEFAULT_QUEUE_SPANS = '65536';
const SCOPE = 'pagewake';

export function telemetryWanted(env: Readonly<Record<string, string | undefined>> = process.env): boolean {
  if (env['OTEL_SDK_DISABLED']?.trim().toLowerCase() === 'true') return false;
  const exporter = env['OTEL_TRACES_EXPORTER']?.trim() ?? '';
  if (exporter !== '') return exporter !== 'none';
  const endpoints = [env['OTEL_EXPORTER_OTLP_ENDPOINT'], env['OTEL_EXPORTER_OTLP_TRACES_ENDPOINT']];
  return endpoints.some((endpoint) => endpoint !== undefined && endpoint.trim() !== '');
}

export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  if (options.traceExporter === undefined && !telemetryWanted()) return DISABLED;
  const { log } = options;
  // Otherwise an endpoint that answers nothing loses every span in silence. OTEL_LOG_LEVEL makes the SDK take over.
  const warn = (text: string, ...rest: unknown[]): void => log.warn({ detail: rest.map(String) }, `telemetry: ${text}`);
  const quiet = (): void => undefined;
  diag.setLogger(
    { error: warn, warn, info: quiet, debug: quiet, verbose: quiet },
    { logLevel: DiagLogLevel.WARN, suppressOverrideMessage: true },
  );
  process.env['OTEL_BSP_MAX_QUEUE_SIZE'] ??= DEFAULT_QUEUE_SPANS;

  // Loaded only here: it takes longer to load than the rest of an agent together.
  const { NodeSDK } = await import('@opentelemetry/sdk-node');
  const ids = new PresetIdGenerator();
  const named =
    nonBlank(process.env['OTEL_SERVICE_NAME']) ||
    /(^|,)\s*service\.name\s*=/.test(process.env['OTEL_RESOURCE_ATTRIBUTES'] ?? '');
  const sdk = new NodeSDK({
    idGenerator: ids,
    instrumentations: [],
    ...(named ? {} : { serviceName: options.serviceName }),
    // Traces only, unless asked: the SDK would send logs and metrics to the same endpoint by default.
    ...(nonBlank(process.env['OTEL_METRICS_EXPORTER']) ? {} : { metricReaders: [] }),
    ...(nonBlank(process.env['OTEL_LOGS_EXPORTER']) ? {} : { logRecordProcessors: [] }),
    ...(options.traceExporter === undefined ? {} : { traceExporter: options.traceExporter }),
  });
  sdk.start();
  return new SdkTelemetry(sdk, ids, log);
}

function nonBlank(text: string | undefined): boolean {
  return text !== undefined && text.trim() !== '';
}

/** Random ids, except that the next ones may be given beforehand. Only for use around one synchronous `startSpan`. */
class PresetIdGenerator implements NonNullable<NodeSDKConfiguration['idGenerator']> {
  #traceId: string | undefined;
  #spanId: string | undefined;

  preset(traceId: string, spanId: string): void {
    this.#traceId = traceId;
    this.#spanId = spanId;
  }

  clear(): void {
    this.#traceId = undefined;
    this.#spanId = undefined;
  }

  generateTraceId(): string {
    return this.#traceId ?? newTraceId();
  }

  generateSpanId(): string {
    return this.#spanId ?? newSpanId();
  }
}

class SdkTelemetry implements Telemetry {
  readonly enabled = true;
  readonly tracer: Tracer;
  readonly #sdk: NodeSDK;
  readonly #ids: PresetIdGenerator;
  readonly #log: Logger;
  #ending: Promise<void> | undefined;

  constructor(sdk: NodeSDK, ids: PresetIdGenerator, log: Logger) {
    this.#sdk = sdk;
    this.#ids = ids;
    this.#log = log;
    this.tracer = trace.getTracer(SCOPE);
  }

  sampleRoot(traceId: string, name: string): boolean {
    this.#ids.preset(traceId, newSpanId());
    // Never ended, so never exported: only the sampler's answer is wanted.
    const span = this.tracer.startSpan(name, { root: true }, ROOT_CONTEXT);
    this.#ids.clear();
    return (span.spanContext().traceFlags & TraceFlags.SAMPLED) !== 0;
  }

  recordSpan(record: SpanRecord): void {
    const { name, kind, traceId, spanId, parentSpanId, attributes, status, links } = record;
    const parent =
      parentSpanId === undefined
        ? ROOT_CONTEXT
        : trace.setSpanContext(ROOT_CONTEXT, {
            traceId,
            spanId: parentSpanId,
            traceFlags: TraceFlags.SAMPLED,
            isRemote: record.parentIsRemote ?? false,
          });
    this.#ids.preset(traceId, spanId);
    const span = this.tracer.startSpan(
      name,
      {
        kind,
        startTime: hrTime(record.startMs),
        ...(attributes === undefined ? {} : { attributes }),
        ...(links === undefined ? {} : { links: [...links] }),
      },
      parent,
    );
    this.#ids.clear();
    if (status !== undefined) span.setStatus(status);
    span.end(hrTime(Math.max(record.startMs, record.endMs)));
  }

  shutdown(): Promise<void> {
    this.#ending ??= this.#sdk.shutdown().catch((error: unknown) => {
      this.#log.warn({ err: String(error) }, 'telemetry: the last spans could not be sent');
    });
    return this.#ending;
  }
}

const DISABLED: Telemetry = {
  enabled: false,
  tracer: trace.getTracer(SCOPE),
  sampleRoot: () => false,
  recordSpan: () => undefined,
  shutdown: () => Promise.resolve(),
};

/** Not a plain number: the SDK takes a small one for a reading of `performance.now()`. */
function hrTime(unixMs: number): HrTime {
  const seconds = Math.floor(unixMs / 1000);
  const nanoseconds = Math.round((unixMs - seconds * 1000) * 1e6);
  return nanoseconds < 1e9 ? [seconds, nanoseconds] : [seconds + 1, 0];
}

/** The id of a TraceContext on the wire as the SDK writes it. */
export function hexId(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
