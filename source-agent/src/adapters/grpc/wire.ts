/** Between the domain's plain objects and the messages of the contract. */
import { create } from '@bufbuild/protobuf';
import { unixMs } from '@pagewake/agent-kit';
import {
  Encoding,
  PageFrameSchema,
  SourceVmState,
  type FrameHead,
  type PageFrame,
  type RegionGeometry,
} from '@pagewake/proto';
import type { Frame, FrameEncoding } from '../../domain/frame-maker.ts';
import type { Region } from '../../domain/guest-image.ts';
import type { VmState } from '../../domain/vm-state.ts';

const ENCODING: Readonly<Record<FrameEncoding, Encoding>> = {
  zero: Encoding.ZERO,
  raw: Encoding.RAW,
  lz4: Encoding.LZ4,
  sparse: Encoding.SPARSE,
};

export const STATE: Readonly<Record<VmState, SourceVmState>> = {
  registered: SourceVmState.REGISTERED,
  ready: SourceVmState.READY,
  serving: SourceVmState.SERVING,
  completed: SourceVmState.COMPLETED,
};

const MAX_UINT32 = 0xffff_ffff;
const MEGA = 1e6;

/** `receivedMs`: when the request came, `performance.now()`. */
export function frameMessage(frame: Frame, receivedMs: number): PageFrame {
  return create(PageFrameSchema, {
    region: frame.region,
    firstPage: frame.firstPage,
    pageCount: frame.pageCount,
    encoding: ENCODING[frame.encoding],
    payload: frame.payload,
    checksum: frame.checksum,
    timings: {
      queueNs: nanoseconds(frame.beganMs - receivedMs),
      readNs: nanoseconds(frame.readMs),
      encodeNs: nanoseconds(frame.encodeMs),
      receivedAtMs: unixMs(receivedMs),
    },
  });
}

/** The head of a message that carries this frame. */
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

export function regionMessages(regions: readonly Region[]): { pageSizeBytes: number; pageCount: number }[] {
  return regions.map(({ pageSizeBytes, pageCount }) => ({ pageSizeBytes, pageCount }));
}

export function regionOf(geometry: RegionGeometry): Region {
  return { pageSizeBytes: geometry.pageSizeBytes, pageCount: geometry.pageCount };
}
