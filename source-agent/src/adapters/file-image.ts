/** Guest memory in files: shared memory with a name (tmpfs, a memfd as /proc/PID/fd/N), or snapshots, sparse or not. */
import { fstatSync } from 'node:fs';
import { ErrorReason, messageOf, PagewakeError } from '@pagewake/agent-kit';
import { duplicateDescriptor, MemoryFile } from '@pagewake/native';
import { checkOverlap, checkRegions, sizeBytes, type PlacedRegion } from '../domain/geometry.ts';
import type { GuestImage, ImageShare, ZeroRunList } from '../domain/guest-image.ts';
import { longestHoles, MAX_HOLES } from '../domain/holes.ts';
import { zeroRunList } from '../domain/zero-table.ts';
import { told } from './outcome.ts';
import type { FileWatchers } from './file-watchers.ts';
import type { FileIdentity } from './proc-maps.ts';
import { refuseTrappedFiles } from './trapped-file.ts';

/** `shared`: a VMM has it mapped. `snapshot`: nobody writes it any more. */
export type FileKind = 'shared' | 'snapshot';

/** Several regions may lie in one file, or each in one of its own. */
export interface FileRegion extends PlacedRegion {
  readonly path: string;
}

interface OpenFile {
  readonly path: string;
  /** "memory file /dev/shm/ram" */
  readonly name: string;
  readonly file: MemoryFile;
  readonly identity: FileIdentity;
}

/** A region with its file and the holes that it had when it was opened: pairs of first byte in the file and length. */
interface Backed {
  readonly region: FileRegion;
  readonly from: OpenFile;
  readonly holes: Float64Array;
}

const WHAT: Readonly<Record<FileKind, string>> = { shared: 'memory file', snapshot: 'snapshot' };
const READABLE_KINDS: readonly string[] = ['memfd-or-shmem', 'hugetlbfs', 'regular'];

/**
 * Opens the files of the regions and finds their holes, while their guest may run. Rejects with INVALID_ARGUMENT, GEOMETRY_MISMATCH (a file is too
 * short), MEMORY_UNREADABLE (it cannot be opened, or another migration is still filling it).
 */
export async function openFileImage(
  kind: FileKind,
  regions: readonly FileRegion[],
  watchers: FileWatchers,
): Promise<GuestImage> {
  checkRegions(regions, 'file_offset');
  const files = new Map<string, OpenFile>();
  const fileOf = ({ path }: FileRegion): OpenFile => files.get(path) ?? open(kind, path);
  try {
    for (const region of regions) files.set(region.path, fileOf(region));
    // By what the files are and not by their names: one may have several.
    const keys = regions.map((region) => keyOf(fileOf(region).identity));
    checkOverlap(regions, 'file_offset', (index) => keys[index] ?? '');
    for (const [index, region] of regions.entries()) checkSize(kind, index, region, fileOf(region));
    // A regular file cannot be watched.
    const watchable = [...files.values()].filter(({ file }) => file.kind() !== 'regular');
    await refuseTrappedFiles(watchable, watchers);
    const found = await Promise.all(regions.map((region, index) => findHoles(index, region, fileOf(region))));
    const holes = longestHoles(found, MAX_HOLES);
    const backed = regions.map((region, index) => ({
      region,
      from: fileOf(region),
      holes: holes[index] ?? new Float64Array(0),
    }));
    return new FileImage(kind, backed);
  } catch (error) {
    for (const { file } of files.values()) file.close();
    throw error;
  }
}

function open(kind: FileKind, path: string): OpenFile {
  if (path === '')
    throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `${WHAT[kind]}: path is empty`, { field: 'path' });
  const name = `${WHAT[kind]} ${path}`;
  let file: MemoryFile;
  try {
    file = MemoryFile.open(path, { write: false });
  } catch (error) {
    const text = `${name} cannot be opened: ${messageOf(error)}`;
    throw new PagewakeError(ErrorReason.MEMORY_UNREADABLE, text, { path, what: WHAT[kind] }, { cause: error });
  }
  try {
    checkKind(name, path, file);
    return { path, name, file, identity: fstatSync(file.fd, { bigint: true }) };
  } catch (error) {
    file.close();
    throw error;
  }
}

function keyOf({ dev, ino }: FileIdentity): string {
  return `${String(dev)}:${String(ino)}`;
}

function checkKind(name: string, path: string, file: MemoryFile): void {
  const found = file.kind();
  if (READABLE_KINDS.includes(found)) return;
  throw new PagewakeError(
    ErrorReason.MEMORY_UNREADABLE,
    `${name} is of kind ${found}, which cannot be read; shared memory and regular files can` +
      (found === 'guest_memfd' ? '. Register the memory of its VMM process instead' : ''),
    { path, found },
  );
}

function checkSize(kind: FileKind, index: number, region: FileRegion, { path, name, file }: OpenFile): void {
  const foundBytes = file.sizeBytes();
  const expectedBytes = region.startBytes + sizeBytes(region);
  if (expectedBytes <= foundBytes) return;
  throw new PagewakeError(
    ErrorReason.GEOMETRY_MISMATCH,
    `${name} has ${String(foundBytes)} bytes, but region ${String(index)} ends at ${String(expectedBytes)}` +
      (kind === 'snapshot' ? ': the file is truncated, or the regions are not its own' : ''),
    { path, region: index, expected: expectedBytes, found: foundBytes },
  );
}

async function findHoles(index: number, region: FileRegion, { path, name, file }: OpenFile): Promise<Float64Array> {
  try {
    return await file.findHoles(region.startBytes, sizeBytes(region), region.pageSizeBytes);
  } catch (error) {
    throw holesUnknown(index, path, name, error);
  }
}

function holesUnknown(index: number, path: string, name: string, error: unknown): PagewakeError {
  return new PagewakeError(
    ErrorReason.MEMORY_UNREADABLE,
    `${name}: the holes of region ${String(index)} cannot be found: ${messageOf(error)}`,
    { path, region: index },
    { cause: error },
  );
}

class FileImage implements GuestImage {
  readonly regions: readonly FileRegion[];
  readonly identity: string;
  readonly #kind: FileKind;
  readonly #backed: readonly Backed[];
  #closed = false;

  constructor(kind: FileKind, backed: readonly Backed[]) {
    this.#kind = kind;
    this.#backed = backed;
    this.regions = backed.map(({ region }) => region);
    this.identity = backed.map(({ from }) => keyOf(from.identity)).join(' ');
  }

  readRun(region: number, firstPage: number, pageCount: number, into: Uint8Array): void {
    const backed = this.#backed[region];
    if (backed === undefined) throw new RangeError(`region ${String(region)}`);
    const { pageSizeBytes, startBytes } = backed.region;
    const length = pageCount * pageSizeBytes;
    const offset = startBytes + firstPage * pageSizeBytes;
    const why = read(backed.from.file, into, length, offset);
    if (why === undefined) return;
    throw new PagewakeError(
      ErrorReason.MEMORY_UNREADABLE,
      `${backed.from.name}: bytes ${String(offset)} to ${String(offset + length)} (region ${String(region)}) cannot be read: ${why}`,
      { path: backed.from.path, region, page: firstPage },
    );
  }

  holes(): readonly ZeroRunList[] {
    return this.#backed.map(({ region, from, holes }, index) => {
      const { pageSizeBytes, startBytes } = region;
      try {
        // Nobody writes a snapshot; and where it lies a look may be slow.
        const still = this.#kind === 'snapshot' ? holes : from.file.stillHoles(holes, pageSizeBytes);
        return zeroRunList(still, startBytes, pageSizeBytes);
      } catch (error) {
        throw holesUnknown(index, from.path, from.name, error);
      }
    });
  }

  share(): ImageShare {
    const regions = this.#backed.map(({ region: { startBytes, pageCount, pageSizeBytes }, from }) => ({
      startBytes,
      pageCount,
      pageSizeBytes,
      name: from.name,
      fd: duplicateDescriptor(from.file.fd),
    }));
    return { kind: 'files', regions };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { from } of this.#backed) from.file.close();
  }
}

/** Undefined, or why it could not be read. */
function read(file: MemoryFile, into: Uint8Array, length: number, offset: number): string | undefined {
  try {
    const outcome = file.read(into, 0, length, offset);
    if (outcome.kind === 'done' && outcome.bytes === length) return undefined;
    const sizeNow = file.sizeBytes();
    return sizeNow < offset + length ? `it was truncated to ${String(sizeNow)} bytes` : told(outcome);
  } catch (error) {
    // The native core refuses offsets beyond the end of the file; ours were inside it when it was opened.
    return messageOf(error);
  }
}
