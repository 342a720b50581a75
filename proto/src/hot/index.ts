/**
 * The messages of both lanes, by hand: protobuf-es copies a page twice to write it and makes an object of every part of it. Byte for byte what the
 * .proto says; `hot.test.ts` holds both against each other.
 */
import { decodeBulkResponse, decodeFaultsResponse } from './frames.ts';
import {
  decodeBulkRequest,
  decodeFaultsRequest,
  encodeBulkRequest,
  encodeFaultsRequest,
  type PlainFaults,
  type PlainRange,
} from './requests.ts';

export { Encoding, ErrorReason } from './enums.ts';
export { encodeLastWord, type LaneName } from './errors.ts';
export { decodeBulkResponse, decodeFaultsResponse, HEAD_ROOM_BYTES, putFrameHead, type FrameHead } from './frames.ts';
export {
  decodeBulkRequest,
  decodeFaultsRequest,
  encodeBulkRequest,
  encodeFaultsRequest,
  type PlainFault,
  type PlainFaults,
  type PlainRange,
} from './requests.ts';

interface HotCodec {
  readonly decode: (bytes: Uint8Array) => unknown;
  /** Responses are written by `putFrameHead`, into the buffer that holds the payload. */
  readonly encode?: (message: never) => Buffer;
}

/** Of the calls that take the same messages over gRPC. */
export const GRPC_PATH = { faults: '/pagewake.v1.PageService/Faults', bulk: '/pagewake.v1.PageService/Bulk' } as const;

/** By message name, for the glue. */
export const HOT: ReadonlyMap<string, HotCodec> = new Map<string, HotCodec>([
  [
    'pagewake.v1.FaultsRequest',
    { decode: decodeFaultsRequest, encode: (message: PlainFaults) => encodeFaultsRequest(message) },
  ],
  [
    'pagewake.v1.BulkRequest',
    { decode: decodeBulkRequest, encode: (message: PlainRange) => encodeBulkRequest(message) },
  ],
  ['pagewake.v1.FaultsResponse', { decode: decodeFaultsResponse }],
  ['pagewake.v1.BulkResponse', { decode: decodeBulkResponse }],
]);
