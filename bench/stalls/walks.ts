/** One life of bench/floor/destination: the touching side, the same program whether the floor or the product fills its memory. */
import type { Program } from '../../e2e/lib/processes.ts';
import { startDestinationProgram, type Filler } from '../lib/floor.ts';

const WALK_MS = 180_000;

export interface Sizes {
  /** Memory that is walked over; a power of two, of which the upper half is touched (floor/touch.h). */
  readonly walkPages: number;
  /** Touches of each walk; together at most half of `walkPages`. */
  readonly touches: {
    readonly warmUp: number;
    readonly noGap: number;
    readonly gap200: number;
    readonly eight: number;
  };
}

export interface Walked {
  readonly touches: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly maxUs: number;
  readonly faultsPerSecond: number;
}

export type WalkName = 'noGap' | 'gap200' | 'eight';
export type Walks = Readonly<Record<WalkName, Walked>>;

/** NAME:TOUCHES:THREADS:GAP_US. The first is not reported: both sides start cold, and a lane is compiled while it runs. */
const planOf = ({ touches }: Sizes): readonly string[] => [
  `warmUp:${touches.warmUp}:1:0`,
  `noGap:${touches.noGap}:1:0`,
  `gap200:${touches.gap200}:1:200`,
  `eight:${touches.eight}:8:0`,
];

export const touchesOf = ({ touches }: Sizes): number =>
  touches.warmUp + touches.noGap + touches.gap200 + touches.eight;

export interface Moments {
  /** Faults are served, nobody has touched anything. */
  ready?(): Promise<void>;
  /** Everything was touched; the memory is still there. */
  finished?(): Promise<void>;
}

function walked(program: Program, name: WalkName): Walked {
  const line = program.lines.find((l) => l['event'] === 'walked' && l['name'] === name);
  if (!line) throw new Error(`destination: no line for the walk ${name}`);
  const number = (key: keyof Walked): number => Number(line[key]);
  return {
    touches: number('touches'),
    p50Us: number('p50Us'),
    p99Us: number('p99Us'),
    maxUs: number('maxUs'),
    faultsPerSecond: number('faultsPerSecond'),
  };
}

export async function walk(filler: Filler, sizes: Sizes, moments: Moments = {}): Promise<Walks> {
  const program = startDestinationProgram([String(sizes.walkPages), ...filler, ...planOf(sizes)]);
  try {
    await program.waitFor('memory that is served', (line) => line['event'] === 'ready');
    await moments.ready?.();
    program.signal('SIGUSR1');
    await program.waitFor('the walks to end', (line) => line['event'] === 'finished', WALK_MS);
    await moments.finished?.();
    return {
      noGap: walked(program, 'noGap'),
      gap200: walked(program, 'gap200'),
      eight: walked(program, 'eight'),
    };
  } finally {
    await program.stop();
  }
}
