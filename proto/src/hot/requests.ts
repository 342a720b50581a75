/** FaultsRequest and BulkRequest. */
import type { PageRun, TraceContext } from '../gen/pagewake/v1/common_pb.js';
import type { BulkRequest, FaultsRequest, PageFault } from '../gen/pagewake/v1/page_service_pb.js';
import { WireReader } from './reader.ts';
import { BackwardWriter } from './writer.ts';

/** A message of which only the content counts. */
type Plain<T> = Omit<T, '$typeName' | '$unknown'>;

const SESSION = 0x0a;

const FAULTS = 0x12;
const FAULT_ID = 0x08;
const FAULT_REGION = 0x10;
const FAULT_PAGE = 0x18;
const FAULT_TRACE = 0x22;
const FAULT_PAGE_COUNT = 0x28;

const RANGE_ID = 0x10;
const RANGE = 0x1a;
const RANGE_TRACE = 0x22;
const SPARSE = 0x28;
const RUN_REGION = 0x08;
const RUN_FIRST_PAGE = 0x10;
const RUN_PAGE_COUNT = 0x18;

const TRACE_ID = 0x0a;
const SPAN_ID = 0x12;
const FLAGS = 0x18;

/** Of everything but `bytes` fields: six numbers, tags, lengths. */
const FIXED_PART_BYTES = 48;

type PlainTrace = Plain<TraceContext>;
export type PlainFault = Plain<Omit<PageFault, 'trace'>> & { readonly trace?: PlainTrace };
export type PlainFaults = { readonly session: Uint8Array; readonly faults: readonly PlainFault[] };
export type PlainRange = Plain<Omit<BulkRequest, 'range' | 'trace' | 'sparse'>> & {
  readonly range?: Plain<PageRun>;
  readonly trace?: PlainTrace;
  readonly sparse?: boolean;
};

const traceBytes = (trace: PlainTrace | undefined): number =>
  trace === undefined ? 0 : trace.traceId.length + trace.spanId.length;

export function encodeFaultsRequest({ session, faults }: PlainFaults): Buffer {
  let room = FIXED_PART_BYTES + session.length;
  for (const { trace } of faults) room += FIXED_PART_BYTES + traceBytes(trace);
  const out = new BackwardWriter(Buffer.allocUnsafe(room), room);
  for (let i = faults.length - 1; i >= 0; i--) {
    const fault = faults[i];
    if (fault === undefined) continue;
    const end = out.at;
    out.uint32(FAULT_PAGE_COUNT, fault.pageCount);
    putTrace(out, FAULT_TRACE, fault.trace);
    out.uint32(FAULT_PAGE, fault.page);
    out.uint32(FAULT_REGION, fault.region);
    out.uint32(FAULT_ID, fault.faultId);
    out.message(FAULTS, end);
  }
  out.bytes(SESSION, session);
  return out.buffer.subarray(out.at);
}

export function encodeBulkRequest({ session, rangeId, range, trace, sparse = false }: PlainRange): Buffer {
  const room = FIXED_PART_BYTES + session.length + traceBytes(trace);
  const out = new BackwardWriter(Buffer.allocUnsafe(room), room);
  out.bool(SPARSE, sparse);
  putTrace(out, RANGE_TRACE, trace);
  if (range !== undefined) {
    const end = out.at;
    out.uint32(RUN_PAGE_COUNT, range.pageCount);
    out.uint32(RUN_FIRST_PAGE, range.firstPage);
    out.uint32(RUN_REGION, range.region);
    out.message(RANGE, end);
  }
  out.uint32(RANGE_ID, rangeId);
  out.bytes(SESSION, session);
  return out.buffer.subarray(out.at);
}

function putTrace(out: BackwardWriter, tag: number, trace: PlainTrace | undefined): void {
  if (trace === undefined) return;
  const end = out.at;
  out.uint32(FLAGS, trace.flags);
  out.bytes(SPAN_ID, trace.spanId);
  out.bytes(TRACE_ID, trace.traceId);
  out.message(tag, end);
}

const NOTHING = new Uint8Array(0);

/** `bytes` fields alias `bytes`. @throws RangeError */
export function decodeFaultsRequest(bytes: Uint8Array): FaultsRequest {
  const message: FaultsRequest = { $typeName: 'pagewake.v1.FaultsRequest', session: NOTHING, faults: [] };
  const reader = new WireReader(bytes);
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === FAULTS) message.faults.push(readFault(reader));
    else if (tag === SESSION) message.session = reader.view();
    else reader.skip(tag);
  }
  return message;
}

/** `bytes` fields alias `bytes`. @throws RangeError */
export function decodeBulkRequest(bytes: Uint8Array): BulkRequest {
  const message: BulkRequest = { $typeName: 'pagewake.v1.BulkRequest', session: NOTHING, rangeId: 0, sparse: false };
  const reader = new WireReader(bytes);
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === SESSION) message.session = reader.view();
    else if (tag === RANGE_ID) message.rangeId = reader.uint32();
    else if (tag === RANGE) message.range = readRun(reader, message.range);
    else if (tag === RANGE_TRACE) message.trace = readTrace(reader, message.trace);
    else if (tag === SPARSE) message.sparse = reader.bool();
    else reader.skip(tag);
  }
  return message;
}

function readFault(reader: WireReader): PageFault {
  const fault: PageFault = { $typeName: 'pagewake.v1.PageFault', faultId: 0, region: 0, page: 0, pageCount: 0 };
  const outer = reader.enter();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === FAULT_ID) fault.faultId = reader.uint32();
    else if (tag === FAULT_REGION) fault.region = reader.uint32();
    else if (tag === FAULT_PAGE) fault.page = reader.uint32();
    else if (tag === FAULT_TRACE) fault.trace = readTrace(reader, fault.trace);
    else if (tag === FAULT_PAGE_COUNT) fault.pageCount = reader.uint32();
    else reader.skip(tag);
  }
  reader.leave(outer);
  return fault;
}

function readRun(reader: WireReader, into: PageRun | undefined): PageRun {
  const run: PageRun = into ?? { $typeName: 'pagewake.v1.PageRun', region: 0, firstPage: 0, pageCount: 0 };
  const outer = reader.enter();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === RUN_REGION) run.region = reader.uint32();
    else if (tag === RUN_FIRST_PAGE) run.firstPage = reader.uint32();
    else if (tag === RUN_PAGE_COUNT) run.pageCount = reader.uint32();
    else reader.skip(tag);
  }
  reader.leave(outer);
  return run;
}

function readTrace(reader: WireReader, into: TraceContext | undefined): TraceContext {
  const trace: TraceContext = into ?? {
    $typeName: 'pagewake.v1.TraceContext',
    traceId: NOTHING,
    spanId: NOTHING,
    flags: 0,
  };
  const outer = reader.enter();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === TRACE_ID) trace.traceId = reader.view();
    else if (tag === SPAN_ID) trace.spanId = reader.view();
    else if (tag === FLAGS) trace.flags = reader.uint32();
    else reader.skip(tag);
  }
  reader.leave(outer);
  return trace;
}
