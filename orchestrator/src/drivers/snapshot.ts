/** A snapshot in files as the source, a testvmm as the destination. There is no guest to pause: what fails leaves the files as they were. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { messageOf, UserError } from '@pagewake/agent-kit';
import type { SourceMemory, VmmDriver, VmmInstant, VmState } from './driver.ts';
import { TestVmmDestination } from './testvmm.ts';

export interface SnapshotOptions {
  /** The memory image, sparse or not; the source agent opens the same path. */
  readonly memoryFile: string;
  /** What the destination VMM loads. */
  readonly stateFile: string;
  readonly destinationSocket: string;
  /** The image is that many regions of equal size, one behind the other. Default: 1. */
  readonly regions?: number | undefined;
  /** Default: 4096. */
  readonly pageSizeBytes?: number | undefined;
}

const NOW: VmmInstant = { atMs: undefined };

export class SnapshotDriver implements VmmDriver {
  readonly sharedClock = false;
  readonly hasSourceGuest = false;
  readonly #memoryFile: string;
  readonly #stateFile: string;
  readonly #regions: number;
  readonly #pageSizeBytes: number;
  readonly #destination: TestVmmDestination;

  constructor(options: SnapshotOptions) {
    this.#memoryFile = resolve(options.memoryFile);
    this.#stateFile = resolve(options.stateFile);
    this.#regions = options.regions ?? 1;
    this.#pageSizeBytes = options.pageSizeBytes ?? 4096;
    this.#destination = new TestVmmDestination(options.destinationSocket);
  }

  describe(): string {
    return `snapshot ${this.#memoryFile} to testvmm at ${this.#destination.path}`;
  }

  async check(signal: AbortSignal): Promise<void> {
    await sizeOf(this.#stateFile, 'state of the snapshot');
    await this.#destination.check(signal);
  }

  async describeMemory(): Promise<SourceMemory> {
    const bytes = await sizeOf(this.#memoryFile, 'snapshot');
    const pages = bytes / this.#pageSizeBytes / this.#regions;
    if (!Number.isInteger(pages) || pages === 0) {
      throw new UserError(
        `snapshot ${this.#memoryFile}: ${String(bytes)} bytes are not ${String(this.#regions)} equal region(s) of whole pages of ${String(this.#pageSizeBytes)} bytes`,
      );
    }
    const regions = Array.from({ length: this.#regions }, (_, index) => ({
      geometry: { pageSizeBytes: this.#pageSizeBytes, pageCount: pages },
      fileOffset: BigInt(index * pages * this.#pageSizeBytes),
    }));
    return { vmId: undefined, memory: { kind: { case: 'snapshot', value: { path: this.#memoryFile, regions } } } };
  }

  pauseSource(onStop: () => void): Promise<VmmInstant> {
    onStop();
    return Promise.resolve(NOW);
  }

  resumeSource(): Promise<void> {
    return Promise.resolve();
  }

  saveState(): Promise<VmState> {
    return Promise.resolve({ path: this.#stateFile });
  }

  startDestination(state: VmState | undefined, vmmSocket: string, signal: AbortSignal): Promise<VmmInstant> {
    return this.#destination.start(state, vmmSocket, signal);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

async function sizeOf(path: string, what: string): Promise<number> {
  try {
    const info = await stat(path);
    if (!info.isFile()) throw new Error('it is not a regular file');
    return info.size;
  } catch (error) {
    throw new UserError(`${what} ${path}: ${messageOf(error)}`, 1, { cause: error });
  }
}
