/** Guest memory inside another process, read with process_vm_readv: for VMMs whose RAM has no file. */
import { readFileSync } from 'node:fs';
import { ErrorReason, messageOf, PagewakeError } from '@pagewake/agent-kit';
import { ProcessMemory } from '@pagewake/native';
import { checkOverlap, checkRegions, sizeBytes, type PlacedRegion } from '../domain/geometry.ts';
import type { GuestImage, ImageShare, ZeroRunList } from '../domain/guest-image.ts';
import { longestHoles, MAX_HOLES } from '../domain/holes.ts';
import { zeroRunList } from '../domain/zero-table.ts';
import { told } from './outcome.ts';

/** A mapping of a process, half open, in bytes of its address space. */
export interface Mapping {
  readonly start: number;
  readonly end: number;
  readonly readable: boolean;
}

/**
 * Finds the holes of the regions as well, while their guest may run. Rejects with INVALID_ARGUMENT, GEOMETRY_MISMATCH (a range is not mapped),
 * MEMORY_UNREADABLE (no such process, no right to read it, or a userfaultfd says that it is not whole yet).
 */
export async function openProcessImage(pid: number, regions: readonly PlacedRegion[]): Promise<GuestImage> {
  checkRegions(regions, 'address');
  checkOverlap(regions, 'address');
  if (pid === 0) throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, 'process: pid is 0', { field: 'pid' });
  let memory: ProcessMemory;
  try {
    memory = ProcessMemory.open(pid);
  } catch (error) {
    throw unreadable(pid, error);
  }
  try {
    checkMapped(pid, parseMaps(readFileSync(`/proc/${String(pid)}/maps`, 'latin1')), regions);
    const found: Float64Array[] = [];
    // One after the other: each walks all mappings of the process.
    for (const region of regions)
      found.push(await memory.findHoles(region.startBytes, sizeBytes(region), region.pageSizeBytes));
    return new ProcessImage(
      pid,
      memory,
      regions,
      `${String(pid)} since ${beganAt(pid)}`,
      longestHoles(found, MAX_HOLES),
    );
  } catch (error) {
    memory.close();
    throw error instanceof PagewakeError ? error : unreadable(pid, error);
  }
}

function unreadable(pid: number, error: unknown): PagewakeError {
  return new PagewakeError(
    ErrorReason.MEMORY_UNREADABLE,
    `the memory of process ${String(pid)} cannot be read: ${messageOf(error)}`,
    { pid },
    { cause: error },
  );
}

/** When the process began, in ticks since the boot: with its number this is nobody else. */
function beganAt(pid: number): string {
  const stat = readFileSync(`/proc/${String(pid)}/stat`, 'latin1');
  // The name, in brackets, may hold anything; the 22nd field is the 20th after it.
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}

/** Lines of /proc/PID/maps: `start-end perms …`, ascending. */
export function parseMaps(text: string): readonly Mapping[] {
  const mappings: Mapping[] = [];
  for (const [, start, end, read] of text.matchAll(/^([0-9a-f]+)-([0-9a-f]+) ([r-])/gm)) {
    if (start === undefined || end === undefined) continue;
    mappings.push({ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16), readable: read === 'r' });
  }
  return mappings;
}

/** Looked up instead of tried: a trial read of a VM that still runs would populate its memory. */
function checkMapped(pid: number, mappings: readonly Mapping[], regions: readonly PlacedRegion[]): void {
  for (const [index, region] of regions.entries()) {
    const end = region.startBytes + sizeBytes(region);
    const gap = firstGap(mappings, region.startBytes, end);
    if (gap === undefined) continue;
    throw new PagewakeError(
      ErrorReason.GEOMETRY_MISMATCH,
      `process ${String(pid)} has nothing readable mapped at 0x${gap.toString(16)}, in region ${String(index)} ` +
        `(0x${region.startBytes.toString(16)} to 0x${end.toString(16)})`,
      { pid, region: index, found: gap },
    );
  }
}

/** The first address in [start, end) that no readable mapping covers; undefined if all are. */
export function firstGap(mappings: readonly Mapping[], start: number, end: number): number | undefined {
  let reached = start;
  for (const mapping of mappings) {
    if (mapping.end <= reached) continue;
    if (mapping.start > reached || !mapping.readable) break;
    reached = mapping.end;
    if (reached >= end) return undefined;
  }
  return reached;
}

class ProcessImage implements GuestImage {
  readonly regions: readonly PlacedRegion[];
  readonly identity: string;
  readonly #pid: number;
  readonly #memory: ProcessMemory;
  /** As they were when it was opened: pairs of address and length. */
  readonly #holes: readonly Float64Array[];
  #closed = false;

  constructor(
    pid: number,
    memory: ProcessMemory,
    regions: readonly PlacedRegion[],
    identity: string,
    holes: readonly Float64Array[],
  ) {
    this.#pid = pid;
    this.#memory = memory;
    this.regions = regions;
    this.identity = identity;
    this.#holes = holes;
  }

  readRun(region: number, firstPage: number, pageCount: number, into: Uint8Array): void {
    const at = this.regions[region];
    if (at === undefined) throw new RangeError(`region ${String(region)}`);
    const length = pageCount * at.pageSizeBytes;
    const address = at.startBytes + firstPage * at.pageSizeBytes;
    const outcome = this.#memory.read(into, 0, length, address);
    if (outcome.kind === 'done' && outcome.bytes === length) return;
    // A process that died in the middle shows as a hole in its address space.
    const why = this.#memory.alive() ? told(outcome) : 'the process has exited';
    throw new PagewakeError(
      ErrorReason.MEMORY_UNREADABLE,
      `process ${String(this.#pid)}: ${String(length)} bytes at 0x${address.toString(16)} cannot be read: ${why}`,
      { pid: this.#pid, region, page: firstPage, expected: length, found: outcome.bytes },
    );
  }

  holes(): readonly ZeroRunList[] {
    return this.regions.map(({ startBytes, pageSizeBytes }, index) => {
      try {
        const still = this.#memory.stillHoles(this.#holes[index] ?? new Float64Array(0), pageSizeBytes);
        return zeroRunList(still, startBytes, pageSizeBytes);
      } catch (error) {
        throw unreadable(this.#pid, error);
      }
    });
  }

  share(): ImageShare {
    return { kind: 'process', pid: this.#pid, regions: this.regions };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#memory.close();
  }
}
