/**
 * QEMU's own post-copy of the same guest between the same hosts: what pagewake is compared with, and the proof that the guest and the measuring
 * are sound. `node scripts/run.mjs e2e/qemu/native.ts --help` runs it alone.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { makeHosts, type Hosts } from '../lib/hosts.ts';
import { guestWorks, startQemu, type Qemu, type QemuOptions } from '../lib/qemu.ts';
import { hostNowMs } from '../lib/serial.ts';
import { backAtSpeedMs, longestGapMs, timelineOf, workRate, type Heartbeat } from '../lib/timeline.ts';
import { qemuLab } from './install.ts';

/** What both sides have in common. */
export type Machine = Omit<QemuOptions, 'role' | 'host' | 'folder' | 'shim'>;

export interface NativeOptions {
  readonly hosts: Hosts;
  /** For sockets. */
  readonly folder: string;
  readonly machine: Machine;
  /** A channel of its own for pages that a fault waits for. */
  readonly preempt: boolean;
  /** How long the guest works before the migration, to know its speed, and after it. */
  readonly beforeMs: number;
  readonly afterMs: number;
  /** Called when the guest works; what it returns is called after the migration. */
  readonly onWorking?: () => Promise<() => Promise<void>>;
}

export interface NativeRun {
  /** Wall clock, ms: when `migrate` was said, and QEMU's own stamps of its events. */
  readonly startedAtMs: number;
  readonly stopAtMs: number;
  readonly resumeAtMs: number;
  readonly completedAtMs: number;
  /** Of QEMU's destination: how long vCPUs waited for pages, where it counts that. */
  readonly blocktimeMs: number | undefined;
  readonly wireBytes: number | undefined;
  readonly beats: readonly Heartbeat[];
  readonly wrong: number;
  readonly verifiedPages: number;
}

const PORT = 4444;
const MIGRATION_MS = 120_000;

async function setCapabilities(qemu: Qemu, names: readonly string[]): Promise<void> {
  const capabilities = names.map((capability) => ({ capability, state: true }));
  await qemu.qmp.execute('migrate-set-capabilities', { capabilities });
}

const reached = (status: string) => (data: Readonly<Record<string, unknown>>) => data['status'] === status;

/** From being told to until both sides have completed. */
export async function migrateNatively(from: Qemu, to: Qemu, uri: string, preempt: boolean) {
  const capabilities = ['events', 'postcopy-ram', ...(preempt ? ['postcopy-preempt'] : [])];
  await setCapabilities(from, capabilities);
  await setCapabilities(to, [...capabilities, 'postcopy-blocktime']);
  await to.qmp.execute('migrate-incoming', { uri });
  const startedAtMs = hostNowMs();
  await from.qmp.execute('migrate', { uri });
  await from.qmp.waitFor('MIGRATION', reached('active'), MIGRATION_MS);
  await from.qmp.execute('migrate-start-postcopy');
  const stop = await from.qmp.waitFor('STOP', undefined, MIGRATION_MS);
  const resume = await to.qmp.waitFor('RESUME', undefined, MIGRATION_MS);
  const completed = await from.qmp.waitFor('MIGRATION', reached('completed'), MIGRATION_MS);
  await to.qmp.waitFor('MIGRATION', reached('completed'), MIGRATION_MS);
  const info = (await to.qmp.execute('query-migrate')) as { readonly 'postcopy-blocktime'?: number };
  return {
    startedAtMs,
    stopAtMs: stop.atMs,
    resumeAtMs: resume.atMs,
    completedAtMs: completed.atMs,
    blocktimeMs: info['postcopy-blocktime'],
  };
}

/** One migration of a guest that was booted for it, verified page by page at its end. */
export async function runNative(options: NativeOptions): Promise<NativeRun> {
  const { hosts, folder, machine } = options;
  const from = await startQemu({ ...machine, role: 'source', host: hosts.source, folder });
  try {
    await guestWorks(from);
    const to = await startQemu({ ...machine, role: 'destination', host: hosts.destination, folder });
    try {
      const afterwards = await options.onWorking?.();
      await sleep(options.beforeMs);
      const bytesBefore = hosts.wireBytes()?.sent;
      const times = await migrateNatively(from, to, `tcp:${hosts.destination.address}:${PORT}`, options.preempt);
      const bytesAfter = hosts.wireBytes()?.sent;
      await sleep(options.afterMs);
      await afterwards?.();
      const beats = timelineOf(from.serial, to.serial);
      const { wrong, pages } = await to.serial.verify();
      const wireBytes = bytesBefore === undefined || bytesAfter === undefined ? undefined : bytesAfter - bytesBefore;
      return { ...times, wireBytes, beats, wrong, verifiedPages: pages };
    } finally {
      await to.stop();
    }
  } finally {
    await from.stop();
  }
}

export interface Figures {
  /** Both from the source's STOP. */
  readonly wholeMs: number;
  readonly downtimeMs: number;
  readonly longestGapMs: number;
  /** From the source's STOP; undefined where the guest never was. */
  readonly back90Ms: number | undefined;
}

/** The same for every way to migrate: what happened when, and the guest's heartbeats. */
export function figuresOf(
  run: Pick<NativeRun, 'startedAtMs' | 'stopAtMs' | 'resumeAtMs' | 'completedAtMs' | 'beats'>,
  beforeMs: number,
): Figures {
  const before = workRate(run.beats, run.startedAtMs - beforeMs, run.startedAtMs) ?? 0;
  return {
    wholeMs: run.completedAtMs - run.stopAtMs,
    downtimeMs: run.resumeAtMs - run.stopAtMs,
    longestGapMs: longestGapMs(run.beats, run.startedAtMs),
    back90Ms: backAtSpeedMs(run.beats, run.stopAtMs, before),
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '3' },
      preempt: { type: 'boolean', default: false },
      mbit: { type: 'string', default: '0' },
      fill: { type: 'string', default: 'random' },
      backend: { type: 'string', default: 'file' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(
      'node scripts/run.mjs e2e/qemu/native.ts [--runs N] [--preempt] [--mbit N] [--fill random|text] [--backend file|ram]\n' +
        'QEMU’s own post-copy of a guest of 1 GiB that works on 512 MiB. Needs root, for network namespaces.\n',
    );
    return;
  }
  const lab = qemuLab();
  if (lab.reason !== undefined) throw new Error(lab.reason);
  const beforeMs = 3000;
  for (let run = 0; run < Number(values.runs); run++) {
    const hosts = makeHosts();
    const folder = mkdtempSync(join(tmpdir(), 'pw-'));
    try {
      if (Number(values.mbit) > 0) hosts.limitLink(Number(values.mbit));
      const result = await runNative({
        hosts,
        folder,
        machine: {
          parts: lab.parts,
          memoryMiB: 1024,
          backend: values.backend === 'ram' ? 'ram' : 'file',
          guest: { memMiB: 512, fill: values.fill === 'text' ? 'text' : 'random' },
        },
        preempt: values.preempt,
        beforeMs,
        afterMs: 5000,
      });
      const { blocktimeMs, wireBytes, wrong, verifiedPages } = result;
      process.stdout.write(
        `${JSON.stringify({ toStopMs: result.stopAtMs - result.startedAtMs, ...figuresOf(result, beforeMs), blocktimeMs, wireBytes, wrong, verifiedPages })}\n`,
      );
    } finally {
      hosts.close();
      rmSync(folder, { recursive: true, force: true });
    }
  }
}

if (import.meta.main) await main();
