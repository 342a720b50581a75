/** From the memory that a Register names to an image of it. */
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import type { FileRegion, MemorySource, ProcessRegion, RegionGeometry } from '@pagewake/proto';
import type { PlacedRegion } from '../../domain/geometry.ts';
import type { GuestImage, Region } from '../../domain/guest-image.ts';
import { openFileImage, type FileRegion as PlacedFileRegion } from '../file-image.ts';
import type { FileWatchers } from '../file-watchers.ts';
import { openProcessImage } from '../process-image.ts';
import { regionOf } from './wire.ts';

/** Rejects as the images do, and with INVALID_ARGUMENT where the request lacks a part. */
export async function openImage(memory: MemorySource | undefined, watchers: FileWatchers): Promise<GuestImage> {
  const kind = memory?.kind;
  if (kind?.case === 'file') return openFileImage('shared', fileRegions(kind.value), watchers);
  if (kind?.case === 'snapshot') return openFileImage('snapshot', fileRegions(kind.value), watchers);
  if (kind?.case === 'process') return openProcessImage(kind.value.pid, kind.value.regions.map(processRegion));
  throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, 'memory is missing: give a file, a process or a snapshot', {
    field: 'memory',
  });
}

// 64-bit numbers are bigints here. One beyond 2^53 loses bits on conversion, and is refused by checkRegions.

function fileRegions(memory: { readonly path: string; readonly regions: readonly FileRegion[] }): PlacedFileRegion[] {
  return memory.regions.map((region, index) => ({
    ...geometryOf(region.geometry, index),
    startBytes: Number(region.fileOffset),
    path: region.path === '' ? memory.path : region.path,
  }));
}

function processRegion(region: ProcessRegion, index: number): PlacedRegion {
  return { ...geometryOf(region.geometry, index), startBytes: Number(region.address) };
}

function geometryOf(geometry: RegionGeometry | undefined, index: number): Region {
  if (geometry !== undefined) return regionOf(geometry);
  throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `region ${String(index)} has no geometry`, { region: index });
}
