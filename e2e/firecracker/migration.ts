/** One migration of a snapshot into a test VMM that hands its memory over as Firecracker does. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import {
  migrate,
  MigrationError,
  SnapshotDriver,
  summaryOf,
  type MigrationSummary,
  type VmmInstant,
  type VmState,
} from '@pagewake/orchestrator';
import { vmm as startVmm, type Pair } from '../lib/migration.ts';
import type { JsonLine } from '../lib/processes.ts';
import type { Vmm } from '../lib/vmm.ts';
import type { Image } from './images.ts';

export interface Handover {
  readonly image: Image;
  /** Default: the main branch's. */
  readonly handshake?: 'firecracker' | 'secret-free';
  /** Of `testvmm destination`. */
  readonly flags?: readonly string[];
  /** Before the VMM connects to the socket. */
  before?(socket: string): Promise<void>;
  /** While it hands its memory over; its end is waited for. */
  during?(vmm: Vmm): Promise<void>;
}

export interface Outcome {
  readonly summary: MigrationSummary;
  readonly verified: JsonLine;
  readonly vmm: Vmm;
}

class Driver extends SnapshotDriver {
  readonly #handover: Handover;
  readonly #vmm: Vmm;

  constructor(handover: Handover, vmm: Vmm) {
    const { path, regions, pageSizeBytes } = handover.image;
    super({
      memoryFile: path,
      stateFile: `${path}.state`,
      destinationSocket: vmm.controlPath,
      regions,
      pageSizeBytes,
    });
    this.#handover = handover;
    this.#vmm = vmm;
  }

  override async startDestination(state: VmState, socket: string, signal: AbortSignal): Promise<VmmInstant> {
    await this.#handover.before?.(socket);
    const during = this.#handover.during?.(this.#vmm);
    try {
      return await super.startDestination(state, socket, signal);
    } finally {
      await during;
    }
  }
}

let migrations = 0;

async function begin(t: TestContext, pair: Pair, handover: Handover) {
  const { handshake = 'firecracker', flags = [] } = handover;
  const vmm = await startVmm(t, 'destination', pair.folder, ['--handshake', handshake, ...flags]);
  const migration = migrate({
    driver: new Driver(handover, vmm),
    source: { address: pair.source.address },
    destination: { address: pair.destination.address },
    vmId: `fc-${process.pid}-${migrations++}`,
  });
  return { vmm, migration };
}

/** To its end, and then every page is looked at. */
export async function arrives(t: TestContext, pair: Pair, handover: Handover): Promise<Outcome> {
  const { vmm, migration } = await begin(t, pair, handover);
  const summary = summaryOf((await migration.result).migration);
  const verified = await vmm.control.send('verify');
  const { pages } = summary;
  assert.equal(summary.phase, 'completed');
  assert.equal(verified['wrong'], 0);
  assert.equal(pages.present, pages.total);
  assert.equal(summary.mode, 'post-copy');
  assert.ok(summary.faults.total > 0);
  assert.equal(summary.badFrames, 0);
  return { summary, verified, vmm };
}

/** To the error that it ends with. */
export async function fails(t: TestContext, pair: Pair, handover: Handover): Promise<MigrationError> {
  const { migration } = await begin(t, pair, handover);
  const error: unknown = await migration.result.then(
    () => assert.fail('the migration succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof MigrationError, String(error));
  return error;
}
