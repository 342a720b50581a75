/** FaultsResponse and BulkResponse: a page frame with an id, written in front of a payload that is where it is, and read as a view. */
import type { BulkResponse, FaultsResponse, PageFrame } from '../gen/pagewake/v1/page_service_pb.js';
import { Encoding } from './enums.ts';
import { readError } from './errors.ts';
import { WireReader } from './reader.ts';
import { BackwardWriter } from './writer.ts';

/** A head is never longer: room to leave in front of a payload that is read into a message's buffer. */
export const HEAD_ROOM_BYTES = 96;

/** A frame without its payload. */
export interface FrameHead {
  /** `fault_id`, `range_id`. */
  readonly id: number;
  /** `range_done`. */
  readonly done: boolean;
  readonly region: number;
  readonly firstPage: number;
  readonly pageCount: number;
  readonly encoding: number;
  readonly checksum: number;
  readonly queueNs: number;
  readonly readNs: number;
  readonly encodeNs: number;
  readonly receivedAtMs: number;
}

const ID = 0x08;
const FRAME = 0x12;
const DONE = 0x18;
const FAULTS_ERROR = 0x1a;
const BULK_ERROR = 0x22;

const REGION = 0x08;
const FIRST_PAGE = 0x10;
const PAGE_COUNT = 0x18;
const ENCODING = 0x20;
const PAYLOAD = 0x2a;
const CHECKSUM = 0x35;
const TIMINGS = 0x3a;

const QUEUE_NS = 0x08;
const READ_NS = 0x10;
const ENCODE_NS = 0x18;
const RECEIVED_AT_MS = 0x21;

/**
 * Writes the head of a message whose payload is at `payloadAt` and ends the message. The payload is the last field of the frame and the frame the
 * last of the message, so that nothing follows it. `payloadAt` leaves HEAD_ROOM_BYTES.
 * @returns where the message begins
 */
export function putFrameHead(buffer: Buffer, payloadAt: number, payloadBytes: number, head: FrameHead): number {
  const out = new BackwardWriter(buffer, payloadAt);
  const end = payloadAt + payloadBytes;
  if (payloadBytes > 0) {
    out.raw(payloadBytes);
    out.raw(PAYLOAD);
  }
  const timingsEnd = out.at;
  out.double(RECEIVED_AT_MS, head.receivedAtMs);
  out.uint32(ENCODE_NS, head.encodeNs);
  out.uint32(READ_NS, head.readNs);
  out.uint32(QUEUE_NS, head.queueNs);
  out.message(TIMINGS, timingsEnd);
  out.fixed32(CHECKSUM, head.checksum);
  out.uint32(ENCODING, head.encoding);
  out.uint32(PAGE_COUNT, head.pageCount);
  out.uint32(FIRST_PAGE, head.firstPage);
  out.uint32(REGION, head.region);
  out.message(FRAME, end);
  out.bool(DONE, head.done);
  out.uint32(ID, head.id);
  return out.at;
}

const NOTHING = new Uint8Array(0);

/** `payload` aliases `bytes`. @throws RangeError */
export function decodeFaultsResponse(bytes: Uint8Array): FaultsResponse {
  const message: FaultsResponse = { $typeName: 'pagewake.v1.FaultsResponse', faultId: 0 };
  const reader = new WireReader(bytes);
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === ID) message.faultId = reader.uint32();
    else if (tag === FRAME) message.frame = readFrame(reader, message.frame);
    else if (tag === FAULTS_ERROR) message.error = readError(reader, message.error);
    else reader.skip(tag);
  }
  return message;
}

/** `payload` aliases `bytes`. @throws RangeError */
export function decodeBulkResponse(bytes: Uint8Array): BulkResponse {
  const message: BulkResponse = { $typeName: 'pagewake.v1.BulkResponse', rangeId: 0, rangeDone: false };
  const reader = new WireReader(bytes);
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === ID) message.rangeId = reader.uint32();
    else if (tag === FRAME) message.frame = readFrame(reader, message.frame);
    else if (tag === DONE) message.rangeDone = reader.bool();
    else if (tag === BULK_ERROR) message.error = readError(reader, message.error);
    else reader.skip(tag);
  }
  return message;
}

/** `into`: an embedded message that comes twice is one, of the later one's fields where both have them. */
function readFrame(reader: WireReader, into: PageFrame | undefined): PageFrame {
  const frame: PageFrame = into ?? {
    $typeName: 'pagewake.v1.PageFrame',
    region: 0,
    firstPage: 0,
    pageCount: 0,
    encoding: Encoding.UNSPECIFIED,
    payload: NOTHING,
    checksum: 0,
  };
  const outer = reader.enter();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    switch (tag) {
      case REGION:
        frame.region = reader.uint32();
        break;
      case FIRST_PAGE:
        frame.firstPage = reader.uint32();
        break;
      case PAGE_COUNT:
        frame.pageCount = reader.uint32();
        break;
      case ENCODING:
        // oxlint-disable-next-line typescript/no-unsafe-enum-assignment -- any int32: whether it is known is for the reader to say
        frame.encoding = reader.uint32() | 0;
        break;
      case PAYLOAD:
        frame.payload = reader.view();
        break;
      case CHECKSUM:
        frame.checksum = reader.fixed32();
        break;
      case TIMINGS:
        frame.timings = readTimings(reader, frame.timings);
        break;
      default:
        reader.skip(tag);
    }
  }
  reader.leave(outer);
  return frame;
}

type Timings = NonNullable<PageFrame['timings']>;

function readTimings(reader: WireReader, into: Timings | undefined): Timings {
  const timings: Timings = into ?? {
    $typeName: 'pagewake.v1.SourceTimings',
    queueNs: 0,
    readNs: 0,
    encodeNs: 0,
    receivedAtMs: 0,
  };
  const outer = reader.enter();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === QUEUE_NS) timings.queueNs = reader.uint32();
    else if (tag === READ_NS) timings.readNs = reader.uint32();
    else if (tag === ENCODE_NS) timings.encodeNs = reader.uint32();
    else if (tag === RECEIVED_AT_MS) timings.receivedAtMs = reader.double();
    else reader.skip(tag);
  }
  reader.leave(outer);
  return timings;
}
