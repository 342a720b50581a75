/** From a frame to the head of the message that carries it. Loads no package: the bulk lane's thread has it. */
import { unixMs } from '@pagewake/agent-kit/lane';
import { Encoding, type FrameHead } from '@pagewake/proto/hot';
import type { Frame, FrameEncoding } from '../domain/frame-maker.ts';

const ENCODING: Readonly<Record<FrameEncoding, Encoding>> = {
  zero: Encoding.ZERO,
  raw: Encoding.RAW,
  lz4: Encoding.LZ4,
  sparse: Encoding.SPARSE,
};

const MAX_UINT32 = 0xffff_ffff;
const MEGA = 1e6;

/** `receivedMs`: when the request came, `performance.now()`. */
export function frameHead(frame: Frame, id: number, done: boolean, receivedMs: number): FrameHead {
  return {
    id,
    done,
    region: frame.region,
    firstPage: frame.firstPage,
    pageCount: frame.pageCount,
    encoding: ENCODING[frame.encoding],
    checksum: frame.checksum,
    queueNs: nanoseconds(frame.beganMs - receivedMs),
    readNs: nanoseconds(frame.readMs),
    encodeNs: nanoseconds(frame.encodeMs),
    receivedAtMs: unixMs(receivedMs),
  };
}

/** A wait of more than 4.29 s does not fit the field, and is told as that. */
function nanoseconds(ms: number): number {
  return Math.min(MAX_UINT32, Math.max(0, Math.round(ms * MEGA)));
}
