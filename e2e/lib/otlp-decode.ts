/**
 * Reads an OTLP ExportTraceServiceRequest: only the fields that the tests look at, by the numbers of opentelemetry-proto's
 * `trace.proto` and `common.proto`. Fields that are not named here are passed over, as protobuf asks.
 */
import { BinaryReader } from '@bufbuild/protobuf/wire';

export interface ReceivedSpan {
  readonly service: string;
  readonly name: string;
  readonly kind: number;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  /** Unix time, milliseconds with a fraction. */
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: Readonly<Record<string, string | number | boolean>>;
}

type Handler = (reader: BinaryReader) => void;

/** Calls a handler for every field that has one. */
function readMessage(bytes: Uint8Array, handlers: Readonly<Record<number, Handler>>): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    const handler = handlers[field];
    if (handler) handler(reader);
    else reader.skip(wireType, field);
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
/** Nanoseconds do not fit into a number, their milliseconds with a fraction do to about a microsecond. */
const toMs = (nanoseconds: bigint | string): number => Number(BigInt(nanoseconds) / 1000n) / 1000;

function readValue(bytes: Uint8Array): string | number | boolean {
  let value: string | number | boolean = '';
  readMessage(bytes, {
    1: (r) => (value = r.string()),
    2: (r) => (value = r.bool()),
    3: (r) => (value = Number(r.int64())),
    4: (r) => (value = r.double()),
  });
  return value;
}

function readAttribute(bytes: Uint8Array, into: Record<string, string | number | boolean>): void {
  let key = '';
  let value: string | number | boolean = '';
  readMessage(bytes, { 1: (r) => (key = r.string()), 2: (r) => (value = readValue(r.bytes())) });
  into[key] = value;
}

function readSpan(bytes: Uint8Array, service: string): ReceivedSpan {
  const attributes: Record<string, string | number | boolean> = {};
  const span = { name: '', kind: 0, traceId: '', spanId: '', parentSpanId: '', startMs: 0, endMs: 0 };
  readMessage(bytes, {
    1: (r) => (span.traceId = hex(r.bytes())),
    2: (r) => (span.spanId = hex(r.bytes())),
    4: (r) => (span.parentSpanId = hex(r.bytes())),
    5: (r) => (span.name = r.string()),
    6: (r) => (span.kind = r.int32()),
    7: (r) => (span.startMs = toMs(r.fixed64())),
    8: (r) => (span.endMs = toMs(r.fixed64())),
    9: (r) => readAttribute(r.bytes(), attributes),
  });
  return { service, ...span, attributes };
}

function readResourceSpans(bytes: Uint8Array, into: ReceivedSpan[]): void {
  const resource: Record<string, string | number | boolean> = {};
  const scopes: Uint8Array[] = [];
  readMessage(bytes, {
    1: (r) => readMessage(r.bytes(), { 1: (a) => readAttribute(a.bytes(), resource) }),
    2: (r) => scopes.push(r.bytes()),
  });
  for (const scope of scopes)
    readMessage(scope, { 2: (r) => into.push(readSpan(r.bytes(), String(resource['service.name'] ?? ''))) });
}

export function decodeTraces(request: Uint8Array): ReceivedSpan[] {
  const spans: ReceivedSpan[] = [];
  readMessage(request, { 1: (r) => readResourceSpans(r.bytes(), spans) });
  return spans;
}
