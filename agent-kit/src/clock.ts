/** How far the wall clock is from `performance.timeOrigin`; milliseconds. Unknown until somebody asks for the time. */
let stepMs: number | undefined;
const STEP_SEEN_FROM_MS = 5;
/** A process that lost its core between the two clocks saw no step. */
const BOTH_READ_WITHIN_MS = 1;
const TICK_READ_WITHIN_MS = 0.05;
const TICKS = 3;

/**
 * `timeOrigin` itself is two clocks read one after the other as the process starts: where it lost its core in between they are some milliseconds apart for
 * good. `Date.now()` has whole milliseconds only, so what counts is the moment of its tick.
 */
function measureStep(): number {
  let best = { apartMs: 0, withinMs: Number.POSITIVE_INFINITY };
  for (let ticks = 0; ticks < TICKS && best.withinMs > TICK_READ_WITHIN_MS; ticks++) {
    const last = Date.now();
    let wall = last;
    let beforeMs = 0;
    while (wall === last) {
      beforeMs = performance.now();
      wall = Date.now();
    }
    const withinMs = performance.now() - beforeMs;
    if (withinMs < best.withinMs) best = { apartMs: wall - (performance.timeOrigin + beforeMs), withinMs };
  }
  return best.apartMs;
}

/**
 * Unix time in milliseconds with a microsecond fraction. Both clocks are slewed alike, so they part only when somebody sets the
 * wall clock; that is noticed here, because spans of two hosts must agree with what those hosts call the time.
 */
export function unixMs(monotonicMs: number = performance.now()): number {
  stepMs ??= measureStep();
  const beforeMs = performance.now();
  const apartMs = Date.now() - (performance.timeOrigin + beforeMs + stepMs);
  const together = performance.now() - beforeMs < BOTH_READ_WITHIN_MS;
  if (together && Math.abs(apartMs) > STEP_SEEN_FROM_MS) stepMs = measureStep();
  return performance.timeOrigin + monotonicMs + stepMs;
}
