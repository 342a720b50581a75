/**
 * Refuses memory files that are not whole yet: that a process has mapped and registered with a userfaultfd, as the destination of an earlier
 * migration does. Their holes are pages that have not come, and would be told as zeros. (The process kind asks the native core, which answers
 * EBUSY to the same.) Every process is looked at, as a file on a tmpfs names none; one that the path does name (/proc/PID/fd/N) has to answer.
 */
import { readlink, realpath, statfs } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { ErrorReason, messageOf, PagewakeError } from '@pagewake/agent-kit';
import type { FileWatchers, Watcher } from './file-watchers.ts';
import { markOf, watchedIn, type FileIdentity } from './proc-maps.ts';

export interface NamedFile {
  /** "memory file /dev/shm/ram" */
  readonly name: string;
  readonly path: string;
  /** Of what was opened there. */
  readonly identity: FileIdentity;
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

/** Rejects with MEMORY_UNREADABLE if a process watches one of the files, or if that cannot be found out: then it may be so. */
export async function refuseTrappedFiles(files: readonly NamedFile[], watchers: FileWatchers): Promise<void> {
  for (const file of files) await refuseIfOwnerWatches(file);
  const [first] = files;
  if (first === undefined) return;
  let watcher: Watcher | undefined;
  try {
    watcher = await watchers.find(files.map(({ identity }) => markOf(identity)));
  } catch (error) {
    throw notKnown(first, 'the processes that have it mapped', error, {});
  }
  if (watcher === undefined) return;
  const { mark, pid } = watcher;
  throw notWhole(files.find(({ identity }) => markOf(identity) === mark) ?? first, pid);
}

/** Before all others: what the path names need not be in our own proc, and is not passed over where it cannot be asked. */
async function refuseIfOwnerWatches(file: NamedFile): Promise<void> {
  const owner = await descriptorOwner(file.path);
  if (owner === undefined) return;
  const { pid, folder } = owner;
  const mark = markOf(file.identity);
  const whom = `process ${String(pid)}`;
  const watched = await watchedIn(folder, [mark]).catch((error: unknown) => {
    throw notKnown(file, whom, error, { pid });
  });
  if (watched === undefined) throw notKnown(file, whom, 'it has exited', { pid });
  if (watched.has(mark)) throw notWhole(file, pid);
}

function notWhole({ name, path }: NamedFile, pid: number): PagewakeError {
  return new PagewakeError(
    ErrorReason.MEMORY_UNREADABLE,
    `${name} is registered with a userfaultfd in process ${String(pid)}: it is the destination of a migration and not whole ` +
      'yet. Wait until that migration is completed, then try again',
    { path, pid },
  );
}

function notKnown(file: NamedFile, whom: string, cause: unknown, about: { readonly pid?: number }): PagewakeError {
  return new PagewakeError(
    ErrorReason.MEMORY_UNREADABLE,
    `${file.name}: whether all of it is there cannot be found out from ${whom}: ${messageOf(cause)}`,
    { path: file.path, ...about },
    { cause },
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
