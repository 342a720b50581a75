import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { PrefetchCursor, type ClaimSource, type PrefetchSpan } from './prefetch.ts';

/** What the native ledger promises of `claimRun`, in the open. */
class LedgerModel implements ClaimSource {
  readonly missing: boolean[];
  readonly claims: number[];

  constructor(pageCount: number, missing: (page: number) => boolean = () => true) {
    this.missing = Array.from({ length: pageCount }, (_, page) => missing(page));
    this.claims = this.missing.map(() => 0);
  }

  claimRun(from: number, end: number, maxPages: number): { first: number; count: number } | null {
    let first = from;
    while (first < end && this.missing[first] !== true) first++;
    let count = 0;
    while (first + count < end && count < maxPages && this.missing[first + count] === true) count++;
    for (let page = first; page < first + count; page++) this.take(page);
    return count === 0 ? null : { first, count };
  }

  take(page: number): void {
    this.missing[page] = false;
    this.claims[page] = (this.claims[page] ?? 0) + 1;
  }
}

function spansOf(sizes: readonly (readonly [pages: number, maxPages: number])[]): PrefetchSpan[] {
  let first = 0;
  return sizes.map(([pages, maxPages]) => {
    const span = { first, end: first + pages, maxPages };
    first += pages;
    return span;
  });
}

const spans = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 16 })), { minLength: 1, maxLength: 5 })
  .map(spansOf);

type Step = { readonly kind: 'claim' } | { readonly kind: 'fault' | 'move'; readonly page: number };
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Step>({ kind: 'claim' }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant<'fault'>('fault'), page: fc.nat(400) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant<'move'>('move'), page: fc.nat(400) }) },
);

test('property: whatever faults do in between, every missing page is claimed exactly once, and "nothing left" is true', () => {
  fc.assert(
    fc.property(spans, fc.array(step, { maxLength: 100 }), fc.array(fc.nat(400)), (spans, steps, zero) => {
      const pageCount = spans.at(-1)?.end ?? 0;
      const zeros = new Set(zero);
      const ledger = new LedgerModel(pageCount, (page) => !zeros.has(page));
      const wanted = [...ledger.missing];
      const cursor = new PrefetchCursor(spans);
      const claim = (): boolean => {
        const run = cursor.claim(ledger);
        if (!run) return false;
        const span = spans.find((s) => run.first >= s.first && run.first < s.end) ?? assert.fail('in no span');
        assert(run.count >= 1 && run.count <= span.maxPages, 'a run longer than its span allows');
        assert(run.first + run.count <= span.end, 'a run over the border of two regions');
        return true;
      };
      for (const s of steps) {
        if (s.kind === 'claim') {
          if (!claim()) assert(!ledger.missing.includes(true), 'nothing left, although pages are missing');
        } else if (s.kind === 'move') cursor.moveTo(s.page);
        else if (ledger.missing[s.page] === true) {
          ledger.take(s.page);
          cursor.moveTo(s.page);
        }
      }
      while (claim());
      assert.deepEqual(
        ledger.claims,
        wanted.map((missing) => (missing ? 1 : 0)),
      );
    }),
  );
});

test('after a fault the block around it comes first, then what follows, then what lies before', () => {
  const ledger = new LedgerModel(64);
  const cursor = new PrefetchCursor(spansOf([[64, 8]]));
  assert.deepEqual(cursor.claim(ledger), { first: 0, count: 8 });
  ledger.take(37);
  cursor.moveTo(37);
  const order: number[] = [];
  for (let run = cursor.claim(ledger); run; run = cursor.claim(ledger)) order.push(run.first);
  assert.deepEqual(order, [32, 38, 46, 54, 62, 8, 16, 24]);
});

test('blocks are counted from the start of their region, and a run never leaves it', () => {
  const ledger = new LedgerModel(20);
  const cursor = new PrefetchCursor(
    spansOf([
      [5, 4],
      [15, 4],
    ]),
  );
  cursor.moveTo(11);
  assert.deepEqual(cursor.claim(ledger), { first: 9, count: 4 });
  cursor.moveTo(4);
  assert.deepEqual(cursor.claim(ledger), { first: 4, count: 1 });
  assert.deepEqual(cursor.claim(ledger), { first: 5, count: 4 });
});

test('from the end it wraps to the beginning', () => {
  const ledger = new LedgerModel(16);
  const cursor = new PrefetchCursor(spansOf([[16, 4]]));
  cursor.moveTo(15);
  assert.deepEqual(cursor.claim(ledger), { first: 12, count: 4 });
  assert.deepEqual(cursor.claim(ledger), { first: 0, count: 4 });
});

test('a page that went missing again behind the cursor is found', () => {
  const ledger = new LedgerModel(8);
  const cursor = new PrefetchCursor(spansOf([[8, 8]]));
  assert.deepEqual(cursor.claim(ledger), { first: 0, count: 8 });
  assert.equal(cursor.claim(ledger), undefined);
  ledger.missing[2] = true;
  assert.deepEqual(cursor.claim(ledger), { first: 2, count: 1 });
});

test('a fault outside every region moves nothing, and no regions mean nothing to claim', () => {
  const ledger = new LedgerModel(8);
  const cursor = new PrefetchCursor(spansOf([[8, 2]]));
  cursor.moveTo(4);
  cursor.moveTo(99);
  assert.deepEqual(cursor.claim(ledger), { first: 4, count: 2 });
  assert.equal(new PrefetchCursor([]).claim(ledger), undefined);
});
