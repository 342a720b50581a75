/** One migration of a guest that was booted for it, and what it came to. The same for every way: only what happens in between differs. */
import { mkdtempSync, rmSync, writeFileSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Cleanup } from '../../e2e/lib/cleanup.ts';
import { makeHosts } from '../../e2e/lib/hosts.ts';
import { guestWorks, startQemu, type Qemu } from '../../e2e/lib/qemu.ts';
import { hostNowMs } from '../../e2e/lib/serial.ts';
import { timelineOf, type Heartbeat } from '../../e2e/lib/timeline.ts';
import { figuresOf, type Figures } from '../../e2e/qemu/native.ts';
import type { QemuParts } from '../../e2e/qemu/install.ts';
import { Meter, total, type CpuSeconds } from './meter.ts';
import type { Scenario, Sizes, WayName } from './plan.ts';
import { prepareWay, type Moved, type OwnStall } from './ways.ts';

/** How often it is looked whether the guest is as fast as before. */
const LOOK_MS = 250;
const STOP_MS = 120_000;
/** Watched at least this long after the last page: a gap there would count too. */
const WATCH_MS = 1000;

export interface Run extends Omit<Figures, 'back90Ms'> {
  readonly scenario: Scenario['name'];
  readonly way: WayName;
  /** From the source's STOP; where the guest was not back while it was watched, how long that was. */
  readonly back90Ms: number;
  readonly isBack: boolean;
  /** From being told to migrate to the source's STOP: the guest still runs. */
  readonly toStopMs: number;
  readonly vcpuStallMs: number;
  readonly ownStall: OwnStall;
  readonly wireBytes: number;
  /** Without the vCPU threads, until whole. */
  readonly cpuS: number;
  /** The part of it before the source's STOP. */
  readonly cpuBeforeS: number;
  readonly cpuByProcessS: CpuSeconds;
  readonly guestCpuS: number;
  readonly steps: Moved['steps'];
  readonly verifiedPages: number;
  readonly wrongPages: number;
}

export interface RunSetUp {
  readonly parts: QemuParts;
  readonly sizes: Sizes;
  readonly scenario: Scenario;
  readonly way: WayName;
  /** A file of its own for all that was seen. */
  readonly keep: string | undefined;
  readonly signal: AbortSignal;
}

/** @throws Error where a migration fails; whatever was started is gone then too */
export async function run(setUp: RunSetUp): Promise<Run> {
  const scope = new Cleanup();
  const stop = (): void => void scope.run();
  // What is being waited for then fails, and the rest is cleaned up below.
  setUp.signal.addEventListener('abort', stop);
  try {
    return await measured(setUp, scope);
  } finally {
    setUp.signal.removeEventListener('abort', stop);
    await scope.run();
  }
}

async function measured({ parts, sizes, scenario, way: name, keep, signal }: RunSetUp, scope: Cleanup): Promise<Run> {
  const hosts = makeHosts();
  scope.after(() => hosts.close());
  if (scenario.mbitPerS !== undefined) hosts.limitLink(scenario.mbitPerS);
  const folder = mkdtempSync(join(tmpdir(), 'pw-bench-'));
  scope.after(() => rmSync(folder, { recursive: true, force: true }));
  const machine = { parts, memoryMiB: sizes.memoryMiB, guest: { memMiB: sizes.workMiB, fill: scenario.fill } };
  const start = async (options: Pick<Parameters<typeof startQemu>[0], 'role' | 'host' | 'shim'>): Promise<Qemu> => {
    const qemu = await startQemu({ ...machine, ...options, folder });
    scope.after(() => qemu.stop());
    signal.throwIfAborted();
    return qemu;
  };

  const from = await start({ role: 'source', host: hosts.source });
  await guestWorks(from);
  const way = await prepareWay(name, { hosts, folder, scope });
  signal.throwIfAborted();
  const to = await start({ role: 'destination', host: hosts.destination, ...(way.shim && { shim: way.shim }) });
  await sleep(sizes.beforeMs, undefined, { signal });
  const meter = await Meter.start({ hosts, from, to, helpers: way.helpers }, hostNowMs);
  const [moved] = await Promise.all([
    way.migrate(from, to, meter),
    from.qmp.waitFor('STOP', undefined, STOP_MS).then(() => meter.mark()),
  ]);
  const seen = { ...moved, ...switchover(from, to), completedAtMs: moved.wholeAtMs };
  const beats = await untilBack(() => ({ ...seen, beats: timelineOf(from.serial, to.serial) }), sizes, signal);
  const verified = await to.serial.verify();

  const { cost, ownStall, steps } = moved;
  const figures = figuresOf({ ...seen, beats }, sizes.beforeMs);
  const result: Run = {
    scenario: scenario.name,
    way: name,
    ...figures,
    back90Ms: figures.back90Ms ?? (beats.at(-1)?.atMs ?? 0) - seen.stopAtMs,
    isBack: figures.back90Ms !== undefined,
    toStopMs: seen.stopAtMs - moved.startedAtMs,
    vcpuStallMs: cost.vcpuStallMs(seen.resumeAtMs),
    ownStall,
    wireBytes: cost.wireBytes,
    cpuS: total(cost.cpuS),
    cpuBeforeS: total(cost.cpuBeforeS),
    cpuByProcessS: cost.cpuS,
    guestCpuS: cost.guestCpuS,
    steps,
    verifiedPages: verified.pages,
    wrongPages: verified.wrong,
  };
  if (keep !== undefined) {
    mkdirSync(keep, { recursive: true });
    const events = { source: from.qmp.events, destination: to.qmp.events };
    const file = join(keep, `${scenario.name}-${name}-${Math.round(moved.startedAtMs)}.json`);
    writeFileSync(file, `${JSON.stringify({ ...result, seen, beats, events, said: way.said() }, undefined, 1)}\n`);
  }
  return result;
}

/** QEMU's own stamps, whoever drove it. */
function switchover(from: Qemu, to: Qemu): { readonly stopAtMs: number; readonly resumeAtMs: number } {
  const at = ({ qmp }: Qemu, name: string): number => {
    const event = qmp.events.find((e) => e.name === name);
    if (!event) throw new Error(`QEMU never said ${name}`);
    return event.atMs;
  };
  return { stopAtMs: at(from, 'STOP'), resumeAtMs: at(to, 'RESUME') };
}

type Seen = Parameters<typeof figuresOf>[0];

async function untilBack(look: () => Seen, sizes: Sizes, signal: AbortSignal): Promise<readonly Heartbeat[]> {
  await sleep(WATCH_MS, undefined, { signal });
  for (;;) {
    const seen = look();
    const isBack = figuresOf(seen, sizes.beforeMs).back90Ms !== undefined;
    if (isBack || hostNowMs() > seen.completedAtMs + sizes.settleMs) return seen.beats;
    await sleep(LOOK_MS, undefined, { signal });
  }
}
