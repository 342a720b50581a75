/** Between the domain's plain objects and the messages of the contract. */
import { create } from '@bufbuild/protobuf';
import { PageFrameSchema, SourceVmState, type PageFrame, type RegionGeometry } from '@pagewake/proto';
import type { Frame } from '../../domain/frame-maker.ts';
import type { Region } from '../../domain/guest-image.ts';
import type { VmState } from '../../domain/vm-state.ts';
import { frameHead } from '../frame-head.ts';

export const STATE: Readonly<Record<VmState, SourceVmState>> = {
  registered: SourceVmState.REGISTERED,
  ready: SourceVmState.READY,
  serving: SourceVmState.SERVING,
  completed: SourceVmState.COMPLETED,
};

/** `receivedMs`: when the request came, `performance.now()`. */
export function frameMessage(frame: Frame, receivedMs: number): PageFrame {
  const {
    id: _id,
    done: _done,
    queueNs,
    readNs,
    encodeNs,
    receivedAtMs,
    ...head
  } = frameHead(frame, 0, false, receivedMs);
  return create(PageFrameSchema, {
    ...head,
    payload: frame.payload,
    timings: { queueNs, readNs, encodeNs, receivedAtMs },
  });
}

export function regionMessages(regions: readonly Region[]): { pageSizeBytes: number; pageCount: number }[] {
  return regions.map(({ pageSizeBytes, pageCount }) => ({ pageSizeBytes, pageCount }));
}

export function regionOf(geometry: RegionGeometry): Region {
  return { pageSizeBytes: geometry.pageSizeBytes, pageCount: geometry.pageCount };
}
