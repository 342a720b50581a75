/** ErrorDetail, the last message of a lane: read and written. */
import type { ErrorDetail } from '../gen/pagewake/v1/common_pb.js';
import { ErrorReason } from './enums.ts';
import type { WireReader } from './reader.ts';
import { BackwardWriter } from './writer.ts';

const REASON = 0x08;
const MESSAGE = 0x12;
const METADATA = 0x1a;
const KEY = 0x0a;
const VALUE = 0x12;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** @throws RangeError */
function text(reader: WireReader): string {
  try {
    return utf8.decode(reader.view());
  } catch (error) {
    throw new RangeError('a text that is no UTF-8', { cause: error });
  }
}

/** `into`: as of a frame. @throws RangeError */
export function readError(reader: WireReader, into: ErrorDetail | undefined): ErrorDetail {
  const detail: ErrorDetail = into ?? {
    $typeName: 'pagewake.v1.ErrorDetail',
    reason: ErrorReason.UNSPECIFIED,
    message: '',
    metadata: {},
  };
  const outer = reader.enter();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    // oxlint-disable-next-line typescript/no-unsafe-enum-assignment -- any int32: whether it is known is for the reader to say
    if (tag === REASON) detail.reason = reader.uint32() | 0;
    else if (tag === MESSAGE) detail.message = text(reader);
    else if (tag === METADATA) readEntry(reader, detail.metadata);
    else reader.skip(tag);
  }
  reader.leave(outer);
  return detail;
}

function readEntry(reader: WireReader, into: Record<string, string>): void {
  let [key, value] = ['', ''];
  const outer = reader.enter();
  for (let tag = reader.tag(); tag !== 0; tag = reader.tag()) {
    if (tag === KEY) key = text(reader);
    else if (tag === VALUE) value = text(reader);
    else reader.skip(tag);
  }
  reader.leave(outer);
  // As protobuf-es does it: a peer names the key, and this one is no key to an object.
  Object.defineProperty(into, key, { value, configurable: true, enumerable: true, writable: true });
}

export type LaneName = 'faults' | 'bulk';
/** The field `error` of FaultsResponse and of BulkResponse. */
const ERROR: Readonly<Record<LaneName, number>> = { faults: 0x1a, bulk: 0x22 };
/** Of everything but texts, and of a text: tags, lengths, a number. */
const FIXED_PART_BYTES = 32;

/** A response that brings an error and nothing else. */
export function encodeLastWord(lane: LaneName, { reason, message, metadata }: Omit<ErrorDetail, '$typeName'>): Buffer {
  const texts = Object.entries(metadata).map(([key, value]) => [Buffer.from(key), Buffer.from(value)] as const);
  const text = Buffer.from(message);
  let room = FIXED_PART_BYTES + text.length;
  for (const [key, value] of texts) room += FIXED_PART_BYTES + key.length + value.length;
  const out = new BackwardWriter(Buffer.allocUnsafe(room), room);
  for (const [key, value] of texts.toReversed()) {
    const end = out.at;
    out.bytes(VALUE, value);
    out.bytes(KEY, key);
    out.message(METADATA, end);
  }
  out.bytes(MESSAGE, text);
  out.uint32(REASON, reason);
  out.message(ERROR[lane], room);
  return out.buffer.subarray(out.at);
}
