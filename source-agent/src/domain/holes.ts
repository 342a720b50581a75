/** Which holes are worth being told. */

/**
 * Each is looked at again in the blackout, for 0.2 to 0.4 us (SEEK_DATA on tmpfs), so this many cost about a millisecond, whatever the memory's size.
 * What is left out is no loss but for the reading: its pages are found to be zero when they are read.
 */
export const MAX_HOLES = 4096;

/** Of pairs (start, length in bytes), a list a region, the `most` longest over all regions; in their order. */
export function longestHoles(found: readonly Float64Array[], most: number): readonly Float64Array[] {
  const count = found.reduce((sum, pairs) => sum + pairs.length / 2, 0);
  if (count <= most) return found;
  // By powers of two, so that a hundred thousand need no sorting.
  const ofClass = new Map<number, number>();
  for (const length of lengths(found)) ofClass.set(classOf(length), (ofClass.get(classOf(length)) ?? 0) + 1);
  let left = most;
  let least = 0;
  for (const [each, members] of [...ofClass].sort(([a], [b]) => b - a)) {
    least = each;
    if (members > left) break;
    left -= members;
  }
  return found.map((pairs) => {
    const kept: number[] = [];
    for (let i = 0; i < pairs.length; i += 2) {
      const [start = 0, length = 0] = [pairs[i], pairs[i + 1]];
      if (classOf(length) < least || (classOf(length) === least && left-- <= 0)) continue;
      kept.push(start, length);
    }
    return Float64Array.from(kept);
  });
}

function* lengths(found: readonly Float64Array[]): Generator<number> {
  for (const pairs of found) for (let i = 1; i < pairs.length; i += 2) yield pairs[i] ?? 0;
}

function classOf(length: number): number {
  return Math.floor(Math.log2(length));
}
