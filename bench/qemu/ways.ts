/** The ways to migrate. Each is told two QEMUs with the guest at work in one of them, and says when the other has every page. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { MigrationSummary } from '@pagewake/orchestrator';
import { PAGEWAKE, startDestAgent, startSourceAgent } from '../../e2e/lib/agents.ts';
import type { Scope } from '../../e2e/lib/cleanup.ts';
import type { Hosts } from '../../e2e/lib/hosts.ts';
import { Program, type JsonLine } from '../../e2e/lib/processes.ts';
import type { Qemu, ShimOptions } from '../../e2e/lib/qemu.ts';
import { hostNowMs } from '../../e2e/lib/serial.ts';
import { migrateNatively } from '../../e2e/qemu/native.ts';
import type { Cost, Meter } from './meter.ts';
import type { WayName } from './plan.ts';

const PORT = 4444;
const MIGRATION_MS = 180_000;

/** What the way itself counts as time that vCPUs waited, and how. */
export interface OwnStall {
  readonly how: string;
  readonly totalMs?: number;
  readonly faults?: number;
  readonly p50Ms?: number;
  readonly p99Ms?: number;
  readonly maxMs?: number;
}

export interface Moved {
  /** When it was told to. */
  readonly startedAtMs: number;
  readonly wholeAtMs: number;
  readonly cost: Cost;
  readonly ownStall: OwnStall;
  /** Of the orchestrator: how long each step took. */
  readonly steps: readonly { readonly step: string; readonly ms: number }[];
}

export interface Way {
  /** Of the destination's QEMU; undefined: it runs without. */
  readonly shim: ShimOptions | undefined;
  /** Processes beside the two QEMUs, which run already. */
  readonly helpers: readonly Program[];
  migrate(from: Qemu, to: Qemu, meter: Meter): Promise<Moved>;
  /** What every process of it said, by its name. */
  said(): Readonly<Record<string, readonly JsonLine[]>>;
}

export interface Place {
  readonly hosts: Hosts;
  readonly folder: string;
  readonly scope: Scope;
}

export function prepareWay(name: WayName, place: Place): Promise<Way> | Way {
  return name === 'pagewake' ? pagewake(place) : native(place, name === 'qemuPreempt');
}

function native({ hosts }: Place, preempt: boolean): Way {
  return {
    shim: undefined,
    helpers: [],
    said: () => ({}),
    migrate: async (from, to, meter) => {
      const { startedAtMs, completedAtMs, blocktimeMs } = await migrateNatively(
        ...([from, to, `tcp:${hosts.destination.address}:${PORT}`, preempt] as const),
      );
      return {
        startedAtMs,
        wholeAtMs: completedAtMs,
        cost: meter.stop(),
        ownStall: { how: 'postcopy-blocktime', ...(blocktimeMs === undefined ? {} : { totalMs: blocktimeMs }) },
        steps: [],
      };
    },
  };
}

const SOCKET_NAME = 'guest.sock';

/** Agents that were started for this run: nothing that an earlier migration has warmed up. */
async function pagewake({ hosts, folder, scope }: Place): Promise<Way> {
  const sockets = join(folder, 'vmm');
  mkdirSync(sockets);
  const source = await startSourceAgent(hosts.source);
  scope.after(() => source.program.stop());
  const destination = await startDestAgent(hosts.destination, sockets);
  scope.after(() => destination.program.stop());
  const programs = [source.program, destination.program];
  return {
    shim: { socket: join(sockets, SOCKET_NAME), vm: 'guest' },
    helpers: programs,
    said: () => Object.fromEntries(programs.map(({ name, lines }) => [name, lines])),
    migrate: async (from, to, meter) => {
      const startedAtMs = hostNowMs();
      const cli = new Program('pagewake migrate qemu', hosts.source, [
        ...[process.execPath, PAGEWAKE, 'migrate', 'qemu', '--json', '--insecure-plaintext', '--vm', 'guest'],
        ...['--source', source.address, '--destination', destination.address],
        ...['--source-qmp', `unix:${from.qmpPath}`, '--dest-qmp', `unix:${to.qmpPath}`],
        ...['--dest-migrate-address', `${hosts.destination.address}:${PORT}`, '--vmm-socket-name', SOCKET_NAME],
      ]);
      scope.after(() => cli.stop());
      programs.push(cli);
      meter.add('orchestrator', cli.pid);
      return { startedAtMs, ...(await followed(cli, meter)) };
    },
  };
}

const isWhole = (line: JsonLine): boolean =>
  line['type'] === 'progress' && (line['migration'] as MigrationSummary).phase === 'completed';

/** From outside, as a user would: whole is when the orchestrator has said so. */
async function followed(cli: Program, meter: Meter): Promise<Omit<Moved, 'startedAtMs'>> {
  let whole: { readonly wholeAtMs: number; readonly cost: Cost } | undefined;
  cli.on('line', (line) => {
    if (isWhole(line)) whole ??= { wholeAtMs: hostNowMs(), cost: meter.stop() };
  });
  const result = await cli.waitFor('result', (line) => line['type'] === 'result', MIGRATION_MS);
  if (!whole) throw new Error('pagewake migrate ended well and never said that the memory is whole');
  const { faults } = result['migration'] as MigrationSummary;
  return {
    ...whole,
    ownStall: {
      how: 'fault read to vCPU woken, of faults that needed the source',
      faults: faults.total,
      p50Ms: faults.stallP50Us / 1000,
      p99Ms: faults.stallP99Us / 1000,
      maxMs: faults.stallMaxUs / 1000,
    },
    steps: result['steps'] as Moved['steps'],
  };
}
