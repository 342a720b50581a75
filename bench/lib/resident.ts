/**
 * An agent's resident memory at its peak. What counts is what the agent itself needs: RssAnon (heaps, stacks, buffers), RssFile (programs and libraries,
 * although agents on one host share them) and of RssShmem what is not the guest's. Guest memory that an agent has mapped is in RssShmem too, but it is there
 * whether or not anybody maps it.
 */
import { readFileSync } from 'node:fs';
import { setInterval } from 'node:timers';

const KIB = 1024;
const EVERY_MS = 25;
/** The memfds of floor/: page server and fill. */
const GUEST_MEMORY = /\/memfd:bench\b/;

export interface Resident {
  readonly anonBytes: number;
  readonly fileBytes: number;
  readonly sharedBytes: number;
}

/** Of /proc/PID/status. */
export function residentOf(status: string): Resident {
  const bytes = (field: string): number =>
    Number(new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * KIB;
  return { anonBytes: bytes('RssAnon'), fileBytes: bytes('RssFile'), sharedBytes: bytes('RssShmem') };
}

/** Of /proc/PID/smaps: how much of guests' memory is mapped and there. */
export function guestBytesOf(smaps: string): number {
  let bytes = 0;
  let isGuest = false;
  for (const line of smaps.split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isGuest = GUEST_MEMORY.test(line);
    else if (isGuest && line.startsWith('Rss:')) bytes += Number(/\d+/.exec(line)?.[0] ?? 0) * KIB;
  }
  return bytes;
}

function statusOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8');
  } catch {
    return undefined;
  }
}

/** Shared memory of the agent's own. Not for the time that is measured: to walk over 8 GiB of a mapping takes some. */
export function ownSharedBytes(pid: number): number {
  const { sharedBytes } = residentOf(statusOf(pid) ?? '');
  return sharedBytes === 0 ? 0 : Math.max(0, sharedBytes - guestBytesOf(readFileSync(`/proc/${pid}/smaps`, 'utf8')));
}

/** Looks at processes again and again, from now until `stop`. */
export class ResidentPeak {
  readonly #pids: readonly number[];
  readonly #peaks: number[];
  readonly #timer: NodeJS.Timeout;

  constructor(pids: readonly number[]) {
    this.#pids = pids;
    this.#peaks = pids.map(() => 0);
    this.#timer = setInterval(() => this.#look(), EVERY_MS);
    this.#look();
  }

  /** While guests' memory is still there. @returns bytes, a process each, in their order */
  stop(): readonly number[] {
    clearInterval(this.#timer);
    this.#look();
    return this.#pids.map((pid, index) => (this.#peaks[index] ?? 0) + ownSharedBytes(pid));
  }

  #look(): void {
    for (const [index, pid] of this.#pids.entries()) {
      const status = statusOf(pid);
      // An agent that ended: whoever waits for it says why.
      if (status === undefined) return clearInterval(this.#timer);
      const { anonBytes, fileBytes } = residentOf(status);
      this.#peaks[index] = Math.max(this.#peaks[index] ?? 0, anonBytes + fileBytes);
    }
  }
}
