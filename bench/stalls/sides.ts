/** Product and floor: the same walks of either, idle and under bulk. */
import { cpuSecondsOfThreads } from '../lib/cpu.ts';
import type { PageServer } from '../lib/floor.ts';
import type { Prepared, Product } from '../lib/product.ts';
import { CONDITIONS, type Condition, type Sizes } from './conditions.ts';
import { walk, type Walked } from './walks.ts';

export type Walks = Readonly<Record<Condition['name'], Walked>>;

export interface Side {
  /** Nothing but faults. */
  idle(sizes: Sizes): Promise<Walks>;
  /** The rest of memory comes meanwhile, as fast as this side brings it. */
  underBulk(sizes: Sizes): Promise<Walks>;
}

/** A life for each: each has all its memory before it. */
async function eachAlone(measure: (condition: Condition) => Promise<readonly Walked[]>): Promise<Walks> {
  const walks: Partial<Record<Condition['name'], Walked>> = {};
  for (const condition of CONDITIONS) Object.assign(walks, named([condition], await measure(condition)));
  return walks as Walks;
}

function named(conditions: readonly Condition[], walked: readonly Walked[]): Walks {
  return Object.fromEntries(conditions.map(({ name }, index) => [name, walked[index]])) as unknown as Walks;
}

/** @throws Error where it was over before it had well begun: no page was left, or bulk had come to its end */
function expectLength(ms: number, leastTime: number, walked: readonly Walked[]): void {
  for (const { touches, seconds } of walked)
    if (leastTime > 0 && (touches === 0 || seconds * 1000 < leastTime * ms))
      throw new Error(`a walk of ${ms} ms ended after ${(seconds * 1000).toFixed(0)} ms and ${touches} touches`);
}

export function floorSide(server: PageServer): Side {
  const filler = ['floor', String(server.port)] as const;
  const cpuSeconds = (): number => cpuSecondsOfThreads(server.program.pid);
  return {
    async idle({ idlePages: pages, warmUpMs, idleMs: ms, leastTime }) {
      const walked = await walk({ filler, pages, bulk: false, warmUpMs, ms, conditions: CONDITIONS, cpuSeconds });
      expectLength(ms, leastTime, walked);
      return named(CONDITIONS, walked);
    },
    underBulk: ({ bulkPages: pages, warmUpMs, bulkMs: ms, leastTime }) =>
      eachAlone(async (condition) => {
        const walked = await walk({ filler, pages, bulk: true, warmUpMs, ms, conditions: [condition], cpuSeconds });
        expectLength(ms, leastTime, walked);
        return walked;
      }),
  };
}

export function productSide(product: Product): Side {
  const cpuSeconds = (): number => product.pids.reduce((sum, pid) => sum + cpuSecondsOfThreads(pid), 0);
  const fromSource = async (prepared: Prepared): Promise<number> =>
    Number((await product.get(prepared)).faults?.fromSource ?? 0n);
  return {
    async idle({ idlePages: pages, warmUpMs, idleMs: ms, leastTime }) {
      const prepared = await product.prepare(pages);
      const { filler } = prepared;
      // Before the VMM comes: prefetch then never begins.
      await product.pause(prepared);
      const finished = async (touches: number): Promise<void> => {
        const faults = await fromSource(prepared);
        // A page that had come by itself would be measured as a very fast fault: then the figures are worth nothing.
        if (faults !== touches)
          throw new Error(
            `${faults} faults needed the source, ${touches} pages were touched: the stalls are not comparable`,
          );
      };
      const conditions = CONDITIONS;
      const walked = await walk({ filler, pages, bulk: false, warmUpMs, ms, conditions, cpuSeconds, finished });
      await product.end(prepared);
      expectLength(ms, leastTime, walked);
      return named(CONDITIONS, walked);
    },
    underBulk: ({ bulkPages: pages, warmUpMs, bulkMs: ms, leastDemand, leastTime }) =>
      eachAlone(async (condition) => {
        const prepared = await product.prepare(pages);
        const { filler } = prepared;
        const finished = async (touches: number): Promise<void> => {
          const faults = await fromSource(prepared);
          if (faults < leastDemand * touches)
            throw new Error(
              `${condition.what}, under bulk: only ${faults} of ${touches} touches needed the source; prefetch had the others under way`,
            );
        };
        const conditions = [condition];
        const walked = await walk({ filler, pages, bulk: true, warmUpMs, ms, conditions, cpuSeconds, finished });
        await product.end(prepared);
        expectLength(ms, leastTime, walked);
        return walked;
      }),
  };
}
