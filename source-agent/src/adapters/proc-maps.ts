/** What /proc tells of the mappings of a process, read off the event loop and in pieces: the kernel may have long lists, and other VMs are served. */
import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';

/** What tells one file from another, as fstat gives it. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

/** In maps a read gives some 4 KiB at most, in smaps too. */
const CHUNK_BYTES = 16_384;

/** How the kernel writes device and inode in maps and smaps, between the offset of a mapping and its name. */
export function markOf({ dev, ino }: FileIdentity): string {
  // As makedev(3) of glibc packs them, and so stat: the low 12 bits of the major and 8 of the minor first, the rest above.
  const major = ((dev >> 32n) & ~0xfffn) | ((dev >> 8n) & 0xfffn);
  const minor = ((dev >> 12n) & ~0xffn) | (dev & 0xffn);
  const hex = (part: bigint): string => part.toString(16).padStart(2, '0');
  return ` ${hex(major)}:${hex(minor)} ${String(ino)} `;
}

/** Whether one of these marks is in the process's maps, if perhaps in the name of a file: `watchedIn` knows for certain. */
export async function mentions(folder: string, marks: readonly string[]): Promise<boolean> {
  const longest = Math.max(...marks.map(({ length }) => length));
  let rest = '';
  for await (const chunk of chunksOf(`${folder}/maps`)) {
    const text = rest + chunk;
    if (marks.some((mark) => text.includes(mark))) return true;
    rest = text.slice(-longest);
  }
  return false;
}

/**
 * Which of these marks' files the process has mapped, shared, with a userfaultfd for missing or minor faults; what is private has pages of its own.
 * The kernel walks the page tables of all its memory for this. Undefined: the process has exited.
 */
export async function watchedIn(folder: string, marks: readonly string[]): Promise<ReadonlySet<string> | undefined> {
  const watched = new Set<string>();
  let mappings = 0;
  let mark = '';
  try {
    for await (const line of linesOf(`${folder}/smaps`)) {
      const [, perms, place] = /^[0-9a-f]+-[0-9a-f]+ (\S+) [0-9a-f]+( [0-9a-f]+:[0-9a-f]+ \d+ )/.exec(line) ?? [];
      if (perms !== undefined && place !== undefined) {
        mappings++;
        mark = perms.endsWith('s') ? place : '';
      } else if (marks.includes(mark) && /^VmFlags:.* u[mi]\b/.test(line)) watched.add(mark);
    }
  } catch (error) {
    // A process without a folder is gone; one with a folder and without smaps is of a kernel that has none.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH' || !existsSync(folder)) return undefined;
    throw error;
  }
  // One that has exited but is not reaped has a list without a line.
  return mappings === 0 ? undefined : watched;
}

async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of chunksOf(path)) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}

/** Throws where a read fails, ESRCH for a process that has exited meanwhile. */
async function* chunksOf(path: string): AsyncGenerator<string> {
  await using file = await open(path);
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, null);
    if (bytesRead === 0) return;
    yield buffer.toString('latin1', 0, bytesRead);
  }
}
