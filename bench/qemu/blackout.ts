/**
 * `node scripts/run.mjs bench/qemu/blackout.ts FOLDER`: the blackouts of the runs that `npm run bench:qemu -- --keep FOLDER` kept, taken apart by QEMU's own stamps of its
 * events, which say what happened when whoever drove it.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { figureOf } from '../lib/rows.ts';
import { table } from '../lib/table.ts';

interface Event {
  readonly name: string;
  readonly atMs: number;
  readonly data: { readonly status?: string };
}

export interface KeptRun {
  readonly scenario: string;
  readonly way: string;
  readonly events: { readonly source: readonly Event[]; readonly destination: readonly Event[] };
}

/** Each ends where the next begins; the first begins with the source's STOP. */
const PARTS = ['RAM is final', 'the state is sent', 'the source is through', 'the guest runs'] as const;

type Parts = Readonly<Record<(typeof PARTS)[number] | 'downtime', number>>;

/** Milliseconds; undefined for a run of QEMU's own post-copy, which has no such parts, or one that did not end. */
export function partsOf({ events: { source, destination } }: KeptRun): Parts | undefined {
  const at = (events: readonly Event[], name: string, status?: string): number =>
    events.find((e) => e.name === name && (status === undefined || e.data.status === status))?.atMs ?? Number.NaN;
  const stamps = [
    at(source, 'STOP'),
    at(source, 'MIGRATION', 'pre-switchover'),
    at(source, 'MIGRATION', 'device'),
    at(source, 'MIGRATION', 'completed'),
    at(destination, 'RESUME'),
  ];
  if (stamps.some(Number.isNaN)) return undefined;
  const took = PARTS.map((part, i) => [part, (stamps[i + 1] ?? 0) - (stamps[i] ?? 0)] as const);
  const downtime = (stamps.at(-1) ?? 0) - (stamps[0] ?? 0);
  return { ...(Object.fromEntries(took) as Parts), downtime };
}

function main(folder: string | undefined): void {
  if (folder === undefined) throw new Error('give the folder that --keep had');
  const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
  const runs = files.map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as KeptRun);
  const rows = Map.groupBy(runs, ({ scenario, way }) => `${scenario}, ${way}`);
  const lines = [...rows].flatMap(([name, of]) => {
    const parts = of.flatMap((run) => partsOf(run) ?? []);
    if (parts.length === 0) return [];
    const columns = [...PARTS, 'downtime'] as const;
    return [
      [name, String(parts.length), ...columns.map((part) => figureOf(parts.map((p) => p[part])).median.toFixed(1))],
    ];
  });
  process.stdout.write(`${table(['ms, medians', 'runs', ...PARTS, 'downtime'], lines)}\n`);
}

if (import.meta.main) main(process.argv[2]);
