/** One guest that works, is moved by the orchestrator's library, and works on: what it got done, and what moving it came to. */
import { setTimeout as sleep } from 'node:timers/promises';
import { migrate, summaryOf, TestVmmDriver, type MigrationSummary } from '@pagewake/orchestrator';
import { startDestAgent, startSourceAgent } from '../../e2e/lib/agents.ts';
import { Cleanup } from '../../e2e/lib/cleanup.ts';
import { whyNoKvm } from '../../e2e/lib/machine.ts';
import type { JsonLine } from '../../e2e/lib/processes.ts';
import { filled, startVmm, type Vmm } from '../../e2e/lib/vmm.ts';
import { LOOPBACK } from '../lib/floor.ts';
import type { Context } from '../lib/section.ts';
import { heartbeatsOf, pagesAt, speeds, type Speed, type WorkAt } from './work.ts';

export const ORDERS = ['sequential', 'random'] as const;
export type Order = (typeof ORDERS)[number];

export interface Guest {
  readonly memoryMiB: number;
  /** Of it: what the guest verifies and rewrites, page by page, as fast as it can. */
  readonly workMiB: number;
  /** Over which its work is counted, before and after. */
  readonly windowMs: number;
}

export interface GuestRun {
  readonly kvm: boolean;
  /** In the last window before the order to migrate; nothing but the idle agents ran beside it. */
  readonly pagesBefore: number;
  /** In the window that begins as the guest stops on the source: the downtime is in it. */
  readonly pagesAfter: number;
  /** Share of the work lost. Below 0: it did more than before. */
  readonly lost: number;
  readonly downtimeMs: number;
  readonly wholeMs: number;
  /** Until then; a page that it came to twice counts twice. */
  readonly pagesUntilWhole: number;
  readonly stallP50Us: number;
  readonly stallP99Us: number;
  readonly faults: MigrationSummary['faults'];
  readonly verifiedPages: number;
  readonly speeds: readonly Speed[];
}

const HEARTBEAT_MS = 20;
/** For a heartbeat behind the end of the window to be read. */
const BEYOND_MS = 5 * HEARTBEAT_MS;
const SPAN_MS = 100;

/** Agents of its own: nothing that an earlier migration has warmed up. */
export async function migrateGuest(order: Order, guest: Guest, { folder, cleanup }: Context): Promise<GuestRun> {
  const scope = new Cleanup();
  cleanup(() => scope.run());
  try {
    return await measured(order, guest, folder, scope);
  } finally {
    await scope.run();
  }
}

async function measured(order: Order, guest: Guest, folder: string, scope: Cleanup): Promise<GuestRun> {
  const source = await startSourceAgent(LOOPBACK);
  scope.after(() => source.program.stop());
  const destination = await startDestAgent(LOOPBACK, folder);
  scope.after(() => destination.program.stop());
  const noKvm = whyNoKvm() === undefined ? [] : ['--no-kvm'];
  const from = await startVmm('source', LOOPBACK, folder, [
    ...['--ram', `${guest.memoryMiB}M`, '--workload', `${guest.workMiB}M`, '--order', order],
    ...['--io-pages', '0', '--heartbeat-ms', String(HEARTBEAT_MS), ...noKvm],
  ]);
  scope.after(() => from.program.stop());
  await filled(from);
  const to = await startVmm('destination', LOOPBACK, folder, noKvm);
  scope.after(() => to.program.stop());

  await sleep(guest.windowMs + BEYOND_MS);
  const orderedMs = heartbeatsOf(from.program.lines).at(-1)?.atMs ?? 0;
  const { result } = migrate({
    driver: new TestVmmDriver({ sourceSocket: from.controlPath, destinationSocket: to.controlPath }),
    source: { address: source.address },
    destination: { address: destination.address },
  });
  const ended = result.then((r) => ({ downtimeMs: r.downtimeMs, summary: summaryOf(r.migration) }));
  // What goes wrong is met where it is awaited.
  ended.catch(() => undefined);
  const stoppedMs = await instantOf(from, 'paused', ended);
  const { downtimeMs, summary } = await ended;
  const stopped = await from.control.send('stats');
  await sleep(Math.max(0, stoppedMs + guest.windowMs + BEYOND_MS - nowMs()));
  const verified = await to.control.send('verify');
  if (verified['wrong'] !== 0) throw new Error(`${String(verified['wrong'])} WRONG PAGES after a migration`);

  const work: WorkAt[] = [
    ...heartbeatsOf(from.program.lines),
    { atMs: stoppedMs, pages: workOf(stopped) },
    ...heartbeatsOf(to.program.lines),
  ];
  const between = (begin: number): number => pagesAt(work, begin + guest.windowMs) - pagesAt(work, begin);
  const [pagesBefore, pagesAfter] = [between(orderedMs - guest.windowMs), between(stoppedMs)];
  return {
    kvm: stopped['kvm'] === true,
    pagesBefore,
    pagesAfter,
    lost: 1 - pagesAfter / pagesBefore,
    downtimeMs,
    wholeMs: summary.fillingMs,
    pagesUntilWhole: pagesAt(work, stoppedMs + downtimeMs + summary.fillingMs) - workOf(stopped),
    stallP50Us: summary.faults.stallP50Us,
    stallP99Us: summary.faults.stallP99Us,
    faults: summary.faults,
    verifiedPages: Number(verified['pages']),
    speeds: speeds(work, stoppedMs, SPAN_MS),
  };
}

/** The VMMs' clock. */
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;

function workOf(stats: JsonLine): number {
  const [vcpu] = stats['vcpus'] as readonly { readonly work: number }[];
  if (!vcpu) throw new Error('a guest without a vCPU');
  return vcpu.work;
}

/** When a VMM said this of itself, unless the migration fails before. */
async function instantOf(vmm: Vmm, event: string, migration: Promise<unknown>): Promise<number> {
  const said = vmm.program.waitFor(event, (line) => line['event'] === event);
  const failed = migration.then(() => said);
  const line = await Promise.race([said, failed]);
  return Number(line['at_ns']) / 1e6;
}
