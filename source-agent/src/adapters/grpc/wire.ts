/** Between the domain's plain objects and the messages of the contract. */
import { create } from '@bufbuild/protobuf';
import { ErrorReason, PagewakeError, unixMs } from '@pagewake/agent-kit';
import {
  Encoding,
  PageFrameSchema,
  SourceVmState,
  type FileRegion,
  type MemorySource,
  type PageFrame,
  type ProcessRegion,
  type RegionGeometry,
} from '@pagewake/proto';
import type { Frame, FrameEncoding } from '../../domain/frame-maker.ts';
import type { PlacedRegion } from '../../domain/geometry.ts';
import type { GuestImage, Region } from '../../domain/guest-image.ts';
import type { VmState } from '../../domain/vm-state.ts';
import { checkWhole, openFileImage } from '../file-image.ts';
import { openProcessImage } from '../process-image.ts';

const ENCODING: Readonly<Record<FrameEncoding, Encoding>> = {
  zero: Encoding.ZERO,
  raw: Encoding.RAW,
  lz4: Encoding.LZ4,
};

export const STATE: Readonly<Record<VmState, SourceVmState>> = {
  registered: SourceVmState.REGISTERED,
  scanning: SourceVmState.SCANNING,
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

/** What has to be waited for before a Register's memory may be opened. Rejects with MEMORY_UNREADABLE. */
export async function checkMemory(memory: MemorySource | undefined): Promise<void> {
  const kind = memory?.kind;
  if (kind?.case === 'file') await checkWhole('shared', kind.value.path);
  if (kind?.case === 'snapshot') await checkWhole('snapshot', kind.value.path);
}

/** Opens what a Register names. Throws as the images do, and INVALID_ARGUMENT where the request lacks a part. */
export function openImage(memory: MemorySource | undefined): GuestImage {
  const kind = memory?.kind;
  if (kind?.case === 'file') return openFileImage('shared', kind.value.path, kind.value.regions.map(fileRegion));
  if (kind?.case === 'snapshot') return openFileImage('snapshot', kind.value.path, kind.value.regions.map(fileRegion));
  if (kind?.case === 'process') return openProcessImage(kind.value.pid, kind.value.regions.map(processRegion));
  throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, 'memory is missing: give a file, a process or a snapshot', {
    field: 'memory',
  });
}

// 64-bit numbers are bigints here. One beyond 2^53 loses bits on conversion, and is refused by checkGeometry.

function fileRegion(region: FileRegion, index: number): PlacedRegion {
  return { ...geometryOf(region.geometry, index), startBytes: Number(region.fileOffset) };
}

function processRegion(region: ProcessRegion, index: number): PlacedRegion {
  return { ...geometryOf(region.geometry, index), startBytes: Number(region.address) };
}

function geometryOf(geometry: RegionGeometry | undefined, index: number): Region {
  if (geometry !== undefined) return regionOf(geometry);
  throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `region ${String(index)} has no geometry`, { region: index });
}
