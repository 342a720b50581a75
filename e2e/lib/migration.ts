/** One whole migration of a test VMM between two agents, as the cases of e2e vary it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { OWN_LOOPBACK } from '@pagewake/agent-kit/testing';
import {
  migrate,
  SnapshotDriver,
  summaryOf,
  TestVmmDriver,
  type MigrationResult,
  type MigrationSummary,
  type Mode,
  type VmmDriver,
} from '@pagewake/orchestrator';
import { startDestAgent, startSourceAgent, type Agent, type AgentOptions } from './agents.ts';
import type { Scope } from './cleanup.ts';
import { makeHosts, type Host } from './hosts.ts';
import type { JsonLine } from './processes.ts';
import { filled, startVmm, type Vmm } from './vmm.ts';

/**
 * Tests that need no link of their own stay on loopback, where the orchestrator can be a library in the test's process. Agents are killed
 * there and come back at the same port.
 */
export const LOOPBACK: Host = { ...makeHosts('loopback').source, address: OWN_LOOPBACK };

export interface Pair {
  readonly folder: string;
  readonly source: Agent;
  readonly destination: Agent;
}

export interface PairOptions {
  readonly source?: AgentOptions;
  readonly destination?: AgentOptions;
}

/** Both agents on loopback; stopped, with their folder removed, when the test ends. */
export async function startPair(t: TestContext, options: PairOptions = {}): Promise<Pair> {
  const folder = temporaryFolder(t);
  const source = await startSourceAgent(LOOPBACK, options.source);
  t.after(() => source.program.stop());
  const destination = await startDestAgent(LOOPBACK, join(folder, 'vmm'), options.destination);
  t.after(() => destination.program.stop());
  return { folder, source, destination };
}

export function temporaryFolder(t: Scope): string {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-e2e-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Starts a VMM that is stopped when the test ends. */
export async function vmm(
  t: TestContext,
  role: 'source' | 'destination',
  folder: string,
  flags: readonly string[],
): Promise<Vmm> {
  const started = await startVmm(role, LOOPBACK, folder, ['--quiet-heartbeats', ...flags]);
  t.after(() => started.program.stop());
  return started;
}

export interface Case {
  /** Of `testvmm source`, without --control. */
  readonly source: readonly string[];
  /** Of `testvmm destination`. */
  readonly destination?: readonly string[];
  readonly mode?: Mode;
}

export interface Outcome {
  readonly result: MigrationResult;
  readonly summary: MigrationSummary;
  /** What the destination's guest says of itself when its memory is whole, and of every page when it is looked through. */
  readonly stats: JsonLine;
  readonly verified: JsonLine;
  readonly vmm: Vmm;
}

/** Migrates a running guest, then looks at every page of it. Throws where anything is not as it must be. */
export async function migrateGuest(
  t: TestContext,
  pair: Pair,
  { source, destination = [], mode = 'auto' }: Case,
): Promise<Outcome> {
  const from = await vmm(t, 'source', pair.folder, source);
  await filled(from);
  const to = await vmm(t, 'destination', pair.folder, destination);
  return migrateTo(pair, to, new TestVmmDriver({ sourceSocket: from.controlPath, destinationSocket: to.controlPath }), {
    mode,
  });
}

export async function migrateSnapshot(
  t: TestContext,
  pair: Pair,
  imagePath: string,
  destination: readonly string[] = [],
): Promise<Outcome> {
  const to = await vmm(t, 'destination', pair.folder, destination);
  const driver = new SnapshotDriver({
    memoryFile: imagePath,
    stateFile: `${imagePath}.state`,
    destinationSocket: to.controlPath,
  });
  return migrateTo(pair, to, driver, { vmId: 'testvmm' });
}

async function migrateTo(
  pair: Pair,
  to: Vmm,
  driver: VmmDriver,
  options: { readonly mode?: Mode; readonly vmId?: string },
): Promise<Outcome> {
  const migration = migrate({
    driver,
    source: { address: pair.source.address },
    destination: { address: pair.destination.address },
    ...options,
  });
  const result = await migration.result;
  const stats = await to.control.send('stats');
  const verified = await to.control.send('verify');
  return { result, summary: summaryOf(result.migration), stats, verified, vmm: to };
}
