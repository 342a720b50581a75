/** What a guest got done, by its heartbeats and on one clock: the hosts' CLOCK_MONOTONIC, in ms. */
import type { JsonLine } from '../../e2e/lib/processes.ts';

/** Pages that the guest has verified and rewritten since its start. */
export interface WorkAt {
  readonly atMs: number;
  readonly pages: number;
}

/** Of the first vCPU, from what its VMM printed. */
export function heartbeatsOf(lines: readonly JsonLine[]): WorkAt[] {
  return lines
    .filter((line) => line['event'] === 'heartbeat' && line['vcpu'] === 0)
    .map((line) => ({ atMs: Number(line['at_ns']) / 1e6, pages: Number(line['work']) }));
}

/**
 * In a straight line between two heartbeats.
 *
 * @throws RangeError where the guest was not watched then
 */
export function pagesAt(work: readonly WorkAt[], atMs: number): number {
  const next = work.findIndex((w) => w.atMs >= atMs);
  const [after, before] = [work[next], work[next - 1]];
  if (after?.atMs === atMs) return after.pages;
  if (!after || !before) throw new RangeError(`no heartbeats around ${atMs} ms`);
  return before.pages + ((after.pages - before.pages) * (atMs - before.atMs)) / (after.atMs - before.atMs);
}

export interface Speed {
  /** From the switchover, negative before it; the middle of the span. */
  readonly atMs: number;
  readonly pagesPerSecond: number;
}

/** The guest's speed in spans of so many ms, as far as it was watched. */
export function speeds(work: readonly WorkAt[], switchMs: number, spanMs: number): Speed[] {
  const [first, last] = [work[0]?.atMs ?? 0, work.at(-1)?.atMs ?? 0];
  const out: Speed[] = [];
  for (let from = switchMs - Math.floor((switchMs - first) / spanMs) * spanMs; from + spanMs <= last; from += spanMs) {
    const pages = pagesAt(work, from + spanMs) - pagesAt(work, from);
    out.push({ atMs: from + spanMs / 2 - switchMs, pagesPerSecond: (pages * 1000) / spanMs });
  }
  return out;
}
