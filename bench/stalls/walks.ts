/** One life of floor/destination: the touching side, the same program whether the floor or the product fills its memory. */
import { startDestinationProgram, type Filler } from '../lib/floor.ts';
import type { Condition } from './conditions.ts';

const WALK_MS = 60_000;
const PAGE_BYTES = 4096;

export interface Walked {
  readonly touches: number;
  /** Pages of the order that were there already, and were not touched. */
  readonly passed: number;
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
  readonly faultsPerSecond: number;
  /** What came beside the pages that were touched. */
  readonly bulkMegabytesPerSecond: number;
  /** Of whoever fills, both ends, for each GiB that came, touched or not. What the touching threads take is not in it. */
  readonly cpuSecondsPerGib: number;
}

export interface Life {
  readonly filler: Filler;
  readonly pages: number;
  /** The rest of memory comes meanwhile. */
  readonly bulk: boolean;
  readonly warmUpMs: number;
  readonly ms: number;
  /** One after the other over the same memory. */
  readonly conditions: readonly Condition[];
  /** Of the processes that fill, but for the program itself. */
  readonly cpuSeconds: () => number;
  /** Everything was touched, in the walks that count and before; the memory is still there. */
  readonly finished?: (touches: number) => Promise<void>;
}

export async function walk(life: Life): Promise<readonly Walked[]> {
  const { filler, pages, bulk, warmUpMs, ms, conditions, cpuSeconds, finished } = life;
  const plan = conditions.map(({ name, threads, gapUs }) => `${name}:${ms}:${threads}:${gapUs}`);
  const all = [`warmUp:${warmUpMs}:1:0`, ...plan];
  const program = startDestinationProgram([String(pages), ...filler, ...(bulk ? ['bulk'] : []), ...all]);
  try {
    await program.waitFor('memory that is served', (line) => line['event'] === 'ready');
    const walked: Walked[] = [];
    for (const [name] of all.map((text) => text.split(':'))) {
      const cpuBefore = cpuSeconds();
      program.signal('SIGUSR1');
      const line = await program.waitFor(
        `end of the walk ${name}`,
        (l) => l['event'] === 'walked' && l['name'] === name,
        WALK_MS,
      );
      const cpu = cpuSeconds() - cpuBefore;
      const number = (key: string): number => Number(line[key]);
      const gib = (number('touches') * PAGE_BYTES + number('bulkMegabytes') * 1e6) / 2 ** 30;
      walked.push({
        touches: number('touches'),
        passed: number('passed'),
        seconds: number('seconds'),
        p50Us: number('p50Us'),
        p99Us: number('p99Us'),
        p999Us: number('p999Us'),
        maxUs: number('maxUs'),
        faultsPerSecond: number('faultsPerSecond'),
        bulkMegabytesPerSecond: number('bulkMegabytesPerSecond'),
        cpuSecondsPerGib: (cpu + number('fillerCpuSeconds')) / gib,
      });
    }
    await finished?.(walked.reduce((sum, { touches }) => sum + touches, 0));
    return walked.slice(1);
  } finally {
    await program.stop();
  }
}
