/** Product and floor: the same walks of either, idle and under bulk. */
import { cpuSecondsOfThreads } from '../lib/cpu.ts';
import type { PageServer } from '../lib/floor.ts';
import type { Product } from '../lib/product.ts';
import { CONDITIONS, type Condition, type Sizes } from './conditions.ts';
import { walk, type Walked } from './walks.ts';

export type Walks = Readonly<Record<Condition['name'], Walked>>;

export interface Side {
  /** Nothing but faults. */
  idle(sizes: Sizes): Promise<Walks>;
  /** The rest of memory comes meanwhile, as fast as this side brings it. */
  underBulk(sizes: Sizes): Promise<Walks>;
}

/** Of the touches under bulk that many at least must be faults that went to the source, or what was measured is prefetch. */
const LEAST_DEMAND = 0.9;
/** Without so many stalls a 99th percentile says nothing. */
const LEAST_TOUCHES = 1000;

function walksOf(conditions: readonly Condition[], walked: readonly Walked[]): Partial<Walks> {
  return Object.fromEntries(conditions.map(({ name }, index) => [name, walked[index]]));
}

async function eachAlone(measure: (condition: Condition) => Promise<readonly Walked[]>): Promise<Walks> {
  const walks: Partial<Record<Condition['name'], Walked>> = {};
  for (const condition of CONDITIONS) Object.assign(walks, walksOf([condition], await measure(condition)));
  return walks as Walks;
}

function expectTouches(condition: Condition, wanted: number, walked: Walked | undefined): void {
  const touches = walked?.touches ?? 0;
  if (touches < Math.min(wanted, LEAST_TOUCHES))
    throw new Error(`${condition.what}: bulk had come to its end after ${touches} touches of ${wanted}`);
}

export function floorSide(server: PageServer): Side {
  const filler = ['floor', String(server.port)] as const;
  const cpuSeconds = (): number => cpuSecondsOfThreads(server.program.pid);
  return {
    async idle({ idlePages: pages, warmUp, touches }) {
      const plan = CONDITIONS.map((condition) => [condition, touches[condition.name]] as const);
      return walksOf(CONDITIONS, await walk({ filler, pages, bulk: false, warmUp, plan, cpuSeconds })) as Walks;
    },
    underBulk: ({ bulkPages: pages, warmUpUnderBulk: warmUp, touchesUnderBulk }) =>
      eachAlone((condition) => {
        const plan = [[condition, touchesUnderBulk[condition.name]]] as const;
        return walk({ filler, pages, bulk: true, warmUp, plan, cpuSeconds });
      }),
  };
}

export function productSide(product: Product): Side {
  const cpuSeconds = (): number => product.pids.reduce((sum, pid) => sum + cpuSecondsOfThreads(pid), 0);
  return {
    async idle({ idlePages: pages, warmUp, touches }) {
      const prepared = await product.prepare(pages);
      // Before the VMM comes: prefetch then never begins.
      await product.pause(prepared);
      const walked = await walk({
        filler: prepared.filler,
        pages,
        bulk: false,
        warmUp,
        plan: CONDITIONS.map((condition) => [condition, touches[condition.name]] as const),
        cpuSeconds,
        // A page that had come by itself would be measured as a very fast fault: then the figures are worth nothing.
        finished: async (touched) => {
          const { faults } = await product.get(prepared);
          const fromSource = Number(faults?.fromSource ?? 0n);
          if (fromSource !== touched)
            throw new Error(
              `${fromSource} faults needed the source, ${touched} pages were touched: the stalls are not comparable`,
            );
        },
      });
      await product.end(prepared);
      return walksOf(CONDITIONS, walked) as Walks;
    },
    underBulk: ({ bulkPages: pages, warmUpUnderBulk: warmUp, touchesUnderBulk }) =>
      eachAlone(async (condition) => {
        const prepared = await product.prepare(pages);
        const wanted = touchesUnderBulk[condition.name];
        const walked = await walk({
          filler: prepared.filler,
          pages,
          bulk: true,
          warmUp,
          plan: [[condition, wanted]],
          cpuSeconds,
          finished: async (touched) => {
            const { faults } = await product.get(prepared);
            const fromSource = Number(faults?.fromSource ?? 0n);
            if (fromSource < LEAST_DEMAND * touched)
              throw new Error(
                `${condition.what}, under bulk: only ${fromSource} of ${touched} touches needed the source; prefetch had the others under way`,
              );
          },
        });
        expectTouches(condition, wanted, walked[0]);
        await product.end(prepared);
        return walked;
      }),
  };
}
