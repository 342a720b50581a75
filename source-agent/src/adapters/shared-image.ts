/** A guest image as another thread of this process reads it: the same files by descriptors of its own, the same process by its number. */
import { MemoryFile, ProcessMemory } from '@pagewake/native';
import { ErrorReason, messageOf, PagewakeError } from '@pagewake/agent-kit/lane';
import type { PlacedRegion } from '../domain/geometry.ts';
import type { ImageShare, Readable } from '../domain/guest-image.ts';
import { told } from './outcome.ts';

/** Throws MEMORY_UNREADABLE. */
export function openShared(share: ImageShare): Readable & { close(): void } {
  return share.kind === 'files' ? new SharedFiles(share.regions) : new SharedProcess(share.pid, share.regions);
}

type SharedRegion = PlacedRegion & { readonly name: string; readonly fd: number };

class SharedFiles implements Readable {
  readonly regions: readonly SharedRegion[];
  readonly #files: readonly MemoryFile[];

  constructor(regions: readonly SharedRegion[]) {
    this.regions = regions;
    this.#files = regions.map(({ fd }) => MemoryFile.adopt(fd));
  }

  readRun(region: number, firstPage: number, pageCount: number, into: Uint8Array): void {
    const placed = this.regions[region];
    const file = this.#files[region];
    if (placed === undefined || file === undefined) throw new RangeError(`region ${region}`);
    const length = pageCount * placed.pageSizeBytes;
    const offset = placed.startBytes + firstPage * placed.pageSizeBytes;
    const why = read(() => file.read(into, 0, length, offset), length);
    if (why !== undefined) throw unreadable(placed.name, offset, length, why, region, firstPage);
  }

  close(): void {
    for (const file of this.#files) file.close();
  }
}

class SharedProcess implements Readable {
  readonly regions: readonly PlacedRegion[];
  readonly #name: string;
  readonly #memory: ProcessMemory;

  constructor(pid: number, regions: readonly PlacedRegion[]) {
    this.regions = regions;
    this.#name = `process ${pid}`;
    try {
      this.#memory = ProcessMemory.open(pid);
    } catch (error) {
      throw new PagewakeError(ErrorReason.MEMORY_UNREADABLE, `${this.#name}: ${messageOf(error)}`, { pid });
    }
  }

  readRun(region: number, firstPage: number, pageCount: number, into: Uint8Array): void {
    const placed = this.regions[region];
    if (placed === undefined) throw new RangeError(`region ${region}`);
    const length = pageCount * placed.pageSizeBytes;
    const address = placed.startBytes + firstPage * placed.pageSizeBytes;
    const why = read(() => this.#memory.read(into, 0, length, address), length);
    if (why === undefined) return;
    // A process that died in the middle shows as a hole in its address space.
    const cause = this.#memory.alive() ? why : 'the process has exited';
    throw unreadable(this.#name, address, length, cause, region, firstPage);
  }

  close(): void {
    this.#memory.close();
  }
}

function read(call: () => ReturnType<MemoryFile['read']>, length: number): string | undefined {
  try {
    const outcome = call();
    return outcome.kind === 'done' && outcome.bytes === length ? undefined : told(outcome);
  } catch (error) {
    // The native core refuses what lies beyond the end of a file; ours were inside it when it was opened.
    return messageOf(error);
  }
}

function unreadable(name: string, at: number, bytes: number, why: string, region: number, page: number): PagewakeError {
  const text = `${name}: bytes ${at} to ${at + bytes} (region ${region}) cannot be read: ${why}`;
  return new PagewakeError(ErrorReason.MEMORY_UNREADABLE, text, { region, page });
}
