/**
 * Refuses a memory file that is not whole yet: one that a process has mapped and registered with a userfaultfd, as the destination of an
 * earlier migration does. Its holes are pages that have not come, and would be told as zeros. (The process kind asks the native core, which
 * answers EBUSY to the same.) Who has a file mapped can be looked up only where the path names a process: /proc/PID/fd/N.
 */
import { createReadStream } from 'node:fs';
import { readlink, realpath, statfs } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { ErrorReason, messageOf, PagewakeError } from '@pagewake/agent-kit';

/** What tells one file from another, as fstat gives it. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

interface DescriptorOwner {
  readonly pid: number;
  /** /proc/PID, or /proc/PID/task/TID. */
  readonly folder: string;
}

/** PROC_SUPER_MAGIC of linux/magic.h: a proc may be mounted anywhere. */
const PROC_MAGIC = 0x9fa0;
/** As many links as the kernel follows. */
const MAX_LINKS = 40;

/**
 * `file` is what was opened at `path`. Rejects with MEMORY_UNREADABLE if the process that the path names has it mapped with a userfaultfd
 * for missing or minor faults, and if that cannot be found out: then it may be so. Any other path passes.
 */
export async function refuseTrappedFile(what: string, path: string, file: FileIdentity): Promise<void> {
  const owner = await descriptorOwner(path);
  if (owner === undefined) return;
  let trapped: boolean;
  try {
    trapped = await isTrapped(owner, file);
  } catch (error) {
    throw new PagewakeError(
      ErrorReason.MEMORY_UNREADABLE,
      `${what} ${path}: whether all of it is there cannot be found out from process ${String(owner.pid)}: ${messageOf(error)}`,
      { path, pid: owner.pid },
      { cause: error },
    );
  }
  if (!trapped) return;
  throw new PagewakeError(
    ErrorReason.MEMORY_UNREADABLE,
    `${what} ${path} is registered with a userfaultfd in process ${String(owner.pid)}: it is the destination of a migration and not whole ` +
      'yet. Wait until that migration is completed, then try again',
    { path, pid: owner.pid },
  );
}

/** Whose descriptor the path names, also by way of links such as /proc/self; undefined if nobody's. */
async function descriptorOwner(path: string): Promise<DescriptorOwner | undefined> {
  let at = resolve(path);
  for (let links = 0; links < MAX_LINKS; links++) {
    try {
      // The folder's real name: that of N itself would be the name of the file, which says nothing of a process.
      const folder = await realpath(dirname(at));
      const [, process, pid] = /^(.*\/(\d+)(?:\/task\/\d+)?)\/fd$/.exec(folder) ?? [];
      if (process !== undefined && pid !== undefined && (await statfs(folder)).type === PROC_MAGIC)
        return { folder: process, pid: Number(pid) };
      at = resolve(folder, await readlink(join(folder, basename(at))));
    } catch {
      break;
    }
  }
  // A process that has gone took its folder along: by its number it is still one that cannot be asked.
  const [, process, pid] = /^(\/proc\/(\d+)(?:\/task\/\d+)?)\/fd\/\d+$/.exec(resolve(path)) ?? [];
  return process === undefined ? undefined : { folder: process, pid: Number(pid) };
}

/** Off the event loop: the kernel walks page tables for each mapping, and other VMs are being served meanwhile. */
async function isTrapped(owner: DescriptorOwner, file: FileIdentity): Promise<boolean> {
  let mappings = 0;
  let ours = false;
  for await (const line of linesOf(join(owner.folder, 'smaps'))) {
    const mapping = identityOf(line);
    if (mapping !== undefined) {
      mappings++;
      ours = mapping.dev === file.dev && mapping.ino === file.ino;
    } else if (ours && /^VmFlags:.* u[mi]\b/.test(line)) return true;
  }
  // A process that has exited but is not reaped has a list without a line.
  if (mappings === 0) throw new Error('it has exited');
  return false;
}

/** Not by node:readline, which does not hand on that a read failed (ESRCH: exited meanwhile). */
async function* linesOf(path: string): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of createReadStream(path, 'latin1') as AsyncIterable<string>) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    yield* lines;
  }
}

/** Of the line that begins a mapping in smaps: `start-end perms offset major:minor inode name`. */
export function identityOf(line: string): FileIdentity | undefined {
  const [, major, minor, inode] = /^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) (\d+)/.exec(line) ?? [];
  if (major === undefined || minor === undefined || inode === undefined) return undefined;
  return { dev: deviceNumber(BigInt(`0x${major}`), BigInt(`0x${minor}`)), ino: BigInt(inode) };
}

/** As makedev(3) of glibc packs it, and so stat: the low 12 bits of the major and 8 of the minor first, the rest above. */
function deviceNumber(major: bigint, minor: bigint): bigint {
  return ((major & ~0xfffn) << 32n) | ((major & 0xfffn) << 8n) | ((minor & ~0xffn) << 12n) | (minor & 0xffn);
}
