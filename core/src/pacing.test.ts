import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { PrefetchPacing } from './pacing.ts';

interface Link {
  readonly bytesPerMs: number;
  readonly roundTripMs: number;
}

interface Seen {
  /** Of what the link could have carried in the second half. */
  readonly share: number;
  /** Bytes that stood in front of a fault's answer beyond what the link itself holds, on average of the second half. */
  readonly queuedBytes: number;
  readonly mostCreditBytes: number;
}

/** A link that is a queue: requests take no time, ranges leave one behind the other. `setBackMs` is added to a range now and then: a host that is busy. */
function simulate(link: Link, forMs: number, { faultEveryMs = Number.POSITIVE_INFINITY, setBackMs = 0 } = {}): Seen {
  const pacing = new PrefetchPacing();
  const inFlight: { bytes: number; askedMs: number; comesMs: number }[] = [];
  let now = 0;
  let freeMs = 0;
  let bytesInFlight = 0;
  let count = 0;
  let lastFaultMs = 0;
  const seen = { bytes: 0, queued: 0, samples: 0, most: 0 };
  while (now < forMs) {
    if (now - lastFaultMs >= faultEveryMs) pacing.fault((lastFaultMs = now));
    while (bytesInFlight < pacing.creditBytes(now)) {
      const bytes = pacing.rangeBytes;
      freeMs =
        Math.max(freeMs, now + link.roundTripMs) + bytes / link.bytesPerMs + (++count % 50 === 0 ? setBackMs : 0);
      inFlight.push({ bytes, askedMs: now, comesMs: freeMs });
      bytesInFlight += bytes;
    }
    seen.most = Math.max(seen.most, pacing.creditBytes(now));
    const next = inFlight.shift();
    assert(next);
    now = next.comesMs;
    bytesInFlight -= next.bytes;
    if (now > forMs / 2) {
      seen.bytes += next.bytes;
      seen.queued += Math.max(0, bytesInFlight - link.bytesPerMs * link.roundTripMs);
      seen.samples++;
    }
    pacing.came(next.bytes, next.askedMs, now);
  }
  return {
    share: seen.bytes / (link.bytesPerMs * (forMs / 2)),
    queuedBytes: seen.queued / seen.samples,
    mostCreditBytes: seen.most,
  };
}

const GBIT = 125_000;
const LINKS = [
  ['1 Gbit/s next door', { bytesPerMs: GBIT, roundTripMs: 0.2 }, 0.98, 400_000],
  ['1 Gbit/s at 20 ms', { bytesPerMs: GBIT, roundTripMs: 20 }, 0.95, 3_500_000],
  ['10 Gbit/s next door', { bytesPerMs: 10 * GBIT, roundTripMs: 0.2 }, 0.98, 1_200_000],
  ['10 Gbit/s at 1 ms', { bytesPerMs: 10 * GBIT, roundTripMs: 1 }, 0.98, 3_000_000],
  ['100 Mbit/s next door', { bytesPerMs: GBIT / 10, roundTripMs: 0.5 }, 0.98, 400_000],
] as const;

for (const [what, link, share, queuedBytes] of LINKS)
  test(`${what}: the link is kept busy, and little more than it holds stands in front of a fault`, () => {
    const seen = simulate(link, 10_000);
    assert(seen.share >= share, `${seen.share.toFixed(3)} of the link`);
    assert(seen.queuedBytes <= queuedBytes, `${String(Math.round(seen.queuedBytes))} bytes`);
    const busy = simulate(link, 10_000, { setBackMs: 3 });
    assert(busy.queuedBytes <= 2 * queuedBytes, 'a busy host makes no queue');
  });

test('while faults wait less is under way, and what the link holds still is', () => {
  for (const [what, link] of LINKS) {
    const without = simulate(link, 10_000);
    const faults = simulate(link, 10_000, { faultEveryMs: 1 });
    assert(faults.queuedBytes <= without.queuedBytes, what);
    assert(faults.share >= 0.9, `${what}: ${faults.share.toFixed(3)}`);
  }
});

test('a link that becomes longer or faster is found out within a few periods', () => {
  for (const then of [
    { bytesPerMs: GBIT, roundTripMs: 20 },
    { bytesPerMs: 10 * GBIT, roundTripMs: 1 },
  ]) {
    const pacing = new PrefetchPacing();
    // All that may be under way goes at once, and comes back one behind the other.
    const run = (link: Link, fromMs: number, untilMs: number): number => {
      let sum = 0;
      for (let asked = fromMs; asked < untilMs;) {
        const ranges = Math.ceil(pacing.creditBytes(asked) / pacing.rangeBytes);
        const bytes = pacing.rangeBytes;
        const comesMs = (nth: number): number => asked + link.roundTripMs + (nth * bytes) / link.bytesPerMs;
        for (let nth = 1; nth <= ranges; nth++) pacing.came(bytes, asked, comesMs(nth));
        sum += ranges * bytes;
        asked = comesMs(ranges);
      }
      return sum;
    };
    run({ bytesPerMs: GBIT, roundTripMs: 0.2 }, 0, 3000);
    run(then, 3100, 9000);
    const bytes = run(then, 9100, 10_100);
    assert(bytes / 1000 >= then.bytesPerMs / 3, `${String(Math.round(bytes / 1000))} bytes a ms`);
  }
});

test('whatever comes whenever, there is room for three ranges or for one alone, never for more than 8 MiB', () => {
  const step = fc.record({
    bytes: fc.integer({ min: 4096, max: 4 << 20 }),
    tookMs: fc.double({ min: 0, max: 5000, noNaN: true }),
    laterMs: fc.double({ min: 0, max: 2000, noNaN: true }),
    kind: fc.constantFrom('came', 'came', 'came', 'fault', 'idle'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const pacing = new PrefetchPacing();
      let now = 10_000;
      for (const { bytes, tookMs, laterMs, kind } of steps) {
        now += laterMs;
        if (kind === 'came') pacing.came(bytes, now - tookMs, now);
        else if (kind === 'fault') pacing.fault(now);
        else pacing.idle();
        const credit = pacing.creditBytes(now);
        assert(pacing.rangeBytes % 131_072 === 0 && pacing.rangeBytes >= 131_072 && pacing.rangeBytes <= 262_144);
        assert(credit === 1 || (credit >= 3 * pacing.rangeBytes && credit <= 8 << 20), String(credit));
      }
    }),
  );
});
