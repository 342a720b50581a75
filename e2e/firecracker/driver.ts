/** A snapshot that a real firecracker made, loaded by another one whose memory comes from the destination agent. */
import { statSync } from 'node:fs';
import type { SourceMemory, VmmDriver, VmmInstant, VmState } from '@pagewake/orchestrator';
import type { Firecracker } from './binary.ts';

const PAGE_BYTES = 4096;
const NOW: VmmInstant = { atMs: undefined };

export interface SnapshotFiles {
  readonly state: string;
  readonly memory: string;
}

export class FirecrackerDriver implements VmmDriver {
  readonly sharedClock = false;
  readonly hasSourceGuest = false;
  readonly #snapshot: SnapshotFiles;
  readonly #destination: Firecracker;
  readonly #resume: boolean;

  constructor(snapshot: SnapshotFiles, destination: Firecracker, resume: boolean) {
    this.#snapshot = snapshot;
    this.#destination = destination;
    this.#resume = resume;
  }

  describe(): string {
    return `snapshot ${this.#snapshot.memory} to ${this.#destination.program.name}`;
  }

  async check(): Promise<void> {
    await this.#destination.call('GET', '/');
  }

  describeMemory(): Promise<SourceMemory> {
    // Below 3 GiB a guest's memory is one region, and the file is nothing but it.
    const geometry = { pageSizeBytes: PAGE_BYTES, pageCount: statSync(this.#snapshot.memory).size / PAGE_BYTES };
    const value = { path: this.#snapshot.memory, regions: [{ geometry, fileOffset: 0n }] };
    return Promise.resolve({ vmId: undefined, memory: { kind: { case: 'snapshot', value } } });
  }

  pauseSource(onStop: () => void): Promise<VmmInstant> {
    onStop();
    return Promise.resolve(NOW);
  }

  resumeSource(): Promise<void> {
    return Promise.resolve();
  }

  saveState(): Promise<VmState> {
    return Promise.resolve({ path: this.#snapshot.state });
  }

  /** Firecracker touches the guest's memory while it loads, so this ends only because faults are resolved. */
  async startDestination(state: VmState | undefined, vmmSocket: string): Promise<VmmInstant> {
    await this.#destination.load(state?.path ?? '', 'Uffd', vmmSocket, this.#resume);
    return NOW;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
