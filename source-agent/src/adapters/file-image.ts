/** Guest memory in a file: shared memory with a name (tmpfs, a memfd as /proc/PID/fd/N), or a snapshot, sparse or not. */
import { fstatSync } from 'node:fs';
import { ErrorReason, messageOf, PagewakeError } from '@pagewake/agent-kit';
import { MemoryFile } from '@pagewake/native';
import { checkGeometry, sizeBytes, type PlacedRegion } from '../domain/geometry.ts';
import type { GuestImage, ZeroRunList } from '../domain/guest-image.ts';
import { zeroRunList } from '../domain/zero-table.ts';
import { told } from './outcome.ts';
import { refuseTrappedFile, refuseTrappedPath, type FileIdentity } from './trapped-file.ts';

/** `shared`: a VMM has it mapped. `snapshot`: nobody writes it any more. Both are read alike; only the words differ. */
export type FileKind = 'shared' | 'snapshot';

const WHAT: Readonly<Record<FileKind, string>> = { shared: 'memory file', snapshot: 'snapshot' };
const READABLE_KINDS: readonly string[] = ['memfd-or-shmem', 'hugetlbfs', 'regular'];

/** To be asked before `openFileImage`. Rejects with MEMORY_UNREADABLE: another migration is still filling the file. */
export async function checkWhole(kind: FileKind, path: string): Promise<void> {
  await refuseTrappedPath(WHAT[kind], path);
}

/** Throws INVALID_ARGUMENT, GEOMETRY_MISMATCH (the file is too short), MEMORY_UNREADABLE (it cannot be opened). */
export function openFileImage(kind: FileKind, path: string, regions: readonly PlacedRegion[]): GuestImage {
  checkGeometry(regions, 'file_offset');
  if (path === '')
    throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `${WHAT[kind]}: path is empty`, { field: 'path' });
  const file = open(kind, path);
  try {
    checkFile(kind, path, file, regions);
  } catch (error) {
    file.close();
    throw error;
  }
  return new FileImage(kind, path, file, regions);
}

function open(kind: FileKind, path: string): MemoryFile {
  try {
    return MemoryFile.open(path, { write: false });
  } catch (error) {
    const about = { path, what: WHAT[kind] };
    const text = `${WHAT[kind]} ${path} cannot be opened: ${messageOf(error)}`;
    throw new PagewakeError(ErrorReason.MEMORY_UNREADABLE, text, about, { cause: error });
  }
}

function checkFile(kind: FileKind, path: string, file: MemoryFile, regions: readonly PlacedRegion[]): void {
  const found = file.kind();
  if (!READABLE_KINDS.includes(found)) {
    throw new PagewakeError(
      ErrorReason.MEMORY_UNREADABLE,
      `${WHAT[kind]} ${path} is of kind ${found}, which cannot be read; shared memory and regular files can` +
        (found === 'guest_memfd' ? '. Register the memory of its VMM process instead' : ''),
      { path, found },
    );
  }
  const foundBytes = file.sizeBytes();
  for (const [index, region] of regions.entries()) {
    const expectedBytes = region.startBytes + sizeBytes(region);
    if (expectedBytes > foundBytes) {
      throw new PagewakeError(
        ErrorReason.GEOMETRY_MISMATCH,
        `${WHAT[kind]} ${path} has ${String(foundBytes)} bytes, but region ${String(index)} ends at ${String(expectedBytes)}` +
          (kind === 'snapshot' ? ': the file is truncated, or the regions are not its own' : ''),
        { path, region: index, expected: expectedBytes, found: foundBytes },
      );
    }
  }
}

class FileImage implements GuestImage {
  readonly regions: readonly PlacedRegion[];
  readonly #name: string;
  readonly #what: string;
  readonly #path: string;
  readonly #file: MemoryFile;
  readonly #identity: FileIdentity;
  #closed = false;

  constructor(kind: FileKind, path: string, file: MemoryFile, regions: readonly PlacedRegion[]) {
    this.#name = `${WHAT[kind]} ${path}`;
    this.#what = WHAT[kind];
    this.#path = path;
    this.#file = file;
    this.#identity = fstatSync(file.fd, { bigint: true });
    this.regions = regions;
  }

  readRun(region: number, firstPage: number, pageCount: number, into: Uint8Array): void {
    const at = this.regions[region];
    if (at === undefined) throw new RangeError(`region ${String(region)}`);
    const length = pageCount * at.pageSizeBytes;
    const offset = at.startBytes + firstPage * at.pageSizeBytes;
    const why = this.#read(into, length, offset);
    if (why === undefined) return;
    throw new PagewakeError(
      ErrorReason.MEMORY_UNREADABLE,
      `${this.#name}: bytes ${String(offset)} to ${String(offset + length)} cannot be read: ${why}`,
      { region, page: firstPage },
    );
  }

  /** Undefined, or why it could not be read. */
  #read(into: Uint8Array, length: number, offset: number): string | undefined {
    try {
      const outcome = this.#file.read(into, 0, length, offset);
      if (outcome.kind === 'done' && outcome.bytes === length) return undefined;
      const sizeNow = this.#file.sizeBytes();
      return sizeNow < offset + length ? `it was truncated to ${String(sizeNow)} bytes` : told(outcome);
    } catch (error) {
      // The native core refuses offsets beyond the end of the file; ours were inside it when it was opened.
      return messageOf(error);
    }
  }

  async scanZero(): Promise<readonly ZeroRunList[]> {
    // Also here: it may have become so since it was registered, and a list of zeros made now would name pages that are still to come.
    await refuseTrappedFile(this.#what, this.#path, this.#identity);
    const lists: ZeroRunList[] = [];
    for (const [index, region] of this.regions.entries()) {
      try {
        const pairs = await this.#file.scanZeroPages(region.startBytes, sizeBytes(region), region.pageSizeBytes);
        lists.push(zeroRunList(pairs, region.startBytes, region.pageSizeBytes));
      } catch (error) {
        throw new PagewakeError(
          ErrorReason.MEMORY_UNREADABLE,
          `${this.#name}: region ${String(index)} cannot be scanned: ${messageOf(error)}`,
          { region: index },
          { cause: error },
        );
      }
    }
    return lists;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#file.close();
  }
}
