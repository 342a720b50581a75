/** How far the wall clock was set away from `performance.timeOrigin` since the process began; milliseconds. */
let stepMs = 0;
const STEP_SEEN_FROM_MS = 5;
/** A process that lost its core between the two clocks saw no step. */
const BOTH_READ_WITHIN_MS = 1;

/**
 * Unix time in milliseconds with a microsecond fraction. Both clocks are slewed alike, so they part only when somebody sets the
 * wall clock; that is noticed here, because spans of two hosts must agree with what those hosts call the time.
 */
export function unixMs(monotonicMs: number = performance.now()): number {
  const beforeMs = performance.now();
  const apartMs = Date.now() - (performance.timeOrigin + beforeMs + stepMs);
  const together = performance.now() - beforeMs < BOTH_READ_WITHIN_MS;
  if (together && Math.abs(apartMs) > STEP_SEEN_FROM_MS) stepMs += apartMs;
  return performance.timeOrigin + monotonicMs + stepMs;
}
