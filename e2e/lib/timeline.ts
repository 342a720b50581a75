/** What a user of the guest sees of a migration: its heartbeats from both hosts in one line of time. All times are of the host's clock, in ms. */
import type { Serial, SerialLine } from './serial.ts';

export interface Heartbeat {
  readonly atMs: number;
  readonly number: number;
  /** The guest's own monotonic clock. */
  readonly guestMs: number;
  /** Pages verified and rewritten since the guest's start. */
  readonly work: number;
  readonly wrong: number;
  readonly diskBlocks: number;
}

/** How often the guest sends one. */
export const HEARTBEAT_MS = 100;
/** Over which the guest's speed is measured: short enough to see a dip, long enough for several heartbeats. */
export const SPEED_WINDOW_MS = 500;

function heartbeatOf({ atMs, line }: SerialLine): Heartbeat[] {
  if (typeof line['hb'] !== 'number') return [];
  const number = (name: string): number => Number(line[name]);
  return [
    {
      atMs,
      number: number('hb'),
      guestMs: number('ms'),
      work: number('work'),
      wrong: number('wrong'),
      diskBlocks: number('disk'),
    },
  ];
}

/** Heartbeats of a guest that moved along these consoles, first to last. One that was cut in two by the switchover counts when its end came. */
export function timelineOf(...consoles: readonly Pick<Serial, 'lines' | 'partial'>[]): Heartbeat[] {
  const beats: Heartbeat[] = [];
  let begun = '';
  for (const { lines, partial } of consoles) {
    for (const [index, serialLine] of lines.entries()) {
      if (index > 0) {
        beats.push(...heartbeatOf(serialLine));
        continue;
      }
      const { atMs, line } = serialLine;
      // Where only the end of the line was left for the next console, nothing of it is to be seen there.
      const cut = heartbeatOf(joined(begun, atMs));
      const rest =
        cut.length === 0 && typeof line['text'] === 'string' ? joined(begun + line['text'], atMs) : serialLine;
      beats.push(...cut, ...heartbeatOf(rest));
    }
    begun = partial;
  }
  return beats;
}

function joined(text: string, atMs: number): SerialLine {
  try {
    return { atMs, line: JSON.parse(text) as SerialLine['line'] };
  } catch {
    return { atMs, line: { text } };
  }
}

/** The longest silence that ends after `fromMs` and begins before `toMs`. About 105 ms means none. */
export function longestGapMs(beats: readonly Heartbeat[], fromMs = -Infinity, toMs = Infinity): number {
  let longest = 0;
  for (const [index, beat] of beats.entries()) {
    const before = beats[index - 1];
    if (before && beat.atMs > fromMs && before.atMs < toMs) longest = Math.max(longest, beat.atMs - before.atMs);
  }
  return longest;
}

/** Pages a second between the first and the last heartbeat of the span; undefined where there are not two. */
export function workRate(beats: readonly Heartbeat[], fromMs: number, toMs: number): number | undefined {
  const within = beats.filter(({ atMs }) => atMs >= fromMs && atMs <= toMs);
  const [first] = within;
  const last = within.at(-1);
  return first && last && last.atMs > first.atMs
    ? ((last.work - first.work) / (last.atMs - first.atMs)) * 1000
    : undefined;
}

export function firstHeartbeatAfter(beats: readonly Heartbeat[], atMs: number): Heartbeat | undefined {
  return beats.find((beat) => beat.atMs > atMs);
}

/**
 * How long after `switchMs` the guest is back at a share of its speed before: the beginning of the first window after it in which the guest did
 * that much. Undefined where it never is.
 *
 * @param before pages a second, as `workRate` says it for some seconds before the migration
 */
export function backAtSpeedMs(
  beats: readonly Heartbeat[],
  switchMs: number,
  before: number,
  share = 0.9,
): number | undefined {
  const after = beats.filter(({ atMs }) => atMs >= switchMs);
  for (const [index, start] of after.entries()) {
    const end = after.slice(index).find(({ atMs }) => atMs - start.atMs >= SPEED_WINDOW_MS);
    if (!end) return undefined;
    if (((end.work - start.work) / (end.atMs - start.atMs)) * 1000 >= share * before) return start.atMs - switchMs;
  }
  return undefined;
}
