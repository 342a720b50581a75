import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { MAX_CLAIM_PAGES, PAGE, PageLedger } from '../ts/index.ts';
import type { LedgerCounts } from '../ts/index.ts';
import { codeOf } from './support.ts';

/** The same rules, page by page, without words, atomics or packing. */
class Model {
  readonly states: number[];
  readonly waiters = new Set<number>();

  constructor(pageCount: number) {
    this.states = Array.from({ length: pageCount }, () => PAGE.missing);
  }

  fault(page: number): string {
    const state = this.states[page];
    if (state === PAGE.missing || state === PAGE.requested) {
      this.states[page] = PAGE.requested;
      this.waiters.add(page);
    }
    return ['claimed', 'waiting', 'present', 'zero', 'removed'][state ?? -1] ?? '';
  }

  claimRun(from: number, end: number, maxPages: number): { first: number; count: number } | null {
    const first = this.states.findIndex((state, page) => page >= from && page < end && state === PAGE.missing);
    if (first < 0 || maxPages === 0) return null;
    let count = 0;
    while (count < maxPages && first + count < end && this.states[first + count] === PAGE.missing) {
      this.states[first + count] = PAGE.requested;
      count++;
    }
    return { first, count };
  }

  /** Changes pages for which `from` holds to `to`; returns those that had a waiter. */
  change(first: number, count: number, from: (state: number) => boolean, to: number): number[] {
    const reported: number[] = [];
    for (let page = first; page < first + count; page++) {
      if (!from(this.states[page] ?? -1)) continue;
      this.states[page] = to;
      if (this.waiters.delete(page)) reported.push(page);
    }
    return reported;
  }

  counts(): LedgerCounts {
    const of = (state: number): number => this.states.filter((found) => found === state).length;
    return {
      missing: of(PAGE.missing),
      requested: of(PAGE.requested),
      present: of(PAGE.present),
      zero: of(PAGE.zero),
      removed: of(PAGE.removed),
    };
  }
}

const PAGES = 53; // no whole number of words
const run = fc.tuple(fc.nat(PAGES), fc.nat(PAGES)).map(([a, b]) => ({ first: Math.min(a, b), count: Math.abs(a - b) }));
const page = fc.nat(PAGES - 1);
const requested = (state: number): boolean => state === PAGE.requested;

type Step = (ledger: PageLedger, model: Model) => void;

const waiting = new Uint32Array(PAGES);
const reported = (count: number): number[] => Array.from(waiting.subarray(0, count));

const step: fc.Arbitrary<Step> = fc.oneof(
  page.map(
    (page): Step =>
      (ledger, model) =>
        assert.equal(ledger.fault(page), model.fault(page)),
  ),
  fc.tuple(run, fc.nat(20)).map(
    ([{ first, count }, max]): Step =>
      (ledger, model) =>
        assert.deepEqual(ledger.claimRun(first, first + count, max), model.claimRun(first, first + count, max)),
  ),
  run.map(
    ({ first, count }): Step =>
      (ledger, model) =>
        assert.deepEqual(
          reported(ledger.installed(first, count, waiting)),
          model.change(first, count, requested, PAGE.present),
        ),
  ),
  run.map(({ first, count }): Step => (ledger, model) => {
    const waiters = [...model.waiters].filter((page) => page >= first && page < first + count).sort((a, b) => a - b);
    for (let page = first; page < first + count; page++)
      if (requested(model.states[page] ?? -1) && !model.waiters.has(page)) model.states[page] = PAGE.zero;
    assert.deepEqual(reported(ledger.foundZero(first, count, waiting)), waiters);
  }),
  run.map(
    ({ first, count }): Step =>
      (ledger, model) =>
        assert.deepEqual(
          reported(ledger.release(first, count, waiting)),
          model.change(first, count, requested, PAGE.missing),
        ),
  ),
  run.map(
    ({ first, count }): Step =>
      (ledger, model) =>
        assert.deepEqual(
          reported(ledger.remove(first, count, waiting)),
          model.change(first, count, () => true, PAGE.removed),
        ),
  ),
  run.map(({ first, count }): Step => (ledger, model) => {
    const before = model.counts().zero;
    model.change(first, count, (state) => state === PAGE.missing, PAGE.zero);
    assert.equal(ledger.setZero(first, count), model.counts().zero - before);
  }),
  page.map((page): Step => (ledger, model) => {
    const state = model.states[page];
    const resolvable = state === PAGE.zero || state === PAGE.removed;
    if (resolvable) model.states[page] = PAGE.present;
    assert.equal(ledger.resolved(page), resolvable);
  }),
);

function assertSame(ledger: PageLedger, model: Model): void {
  const counts = model.counts();
  assert.deepEqual(ledger.counts(), counts);
  assert.equal(ledger.isWhole(), counts.missing + counts.requested === 0);
  assert.deepEqual(
    Array.from({ length: PAGES }, (_, page) => ledger.state(page)),
    model.states,
  );
  assert.deepEqual(
    reported(ledger.waiters(waiting)),
    [...model.waiters].sort((a, b) => a - b),
  );
  for (const from of [0, 15, 16, 40, PAGES]) {
    const missing = model.states.findIndex((state, page) => page >= from && state === PAGE.missing);
    assert.equal(ledger.nextMissing(from, PAGES), missing);
    const first = model.states.findIndex((state, page) => page >= from && state !== PAGE.requested);
    assert.equal(ledger.firstNotRequested(from, PAGES - from), first < 0 ? null : first);
    assert.equal(ledger.isRequested(from, PAGES - from), first < 0);
  }
}

test('any order of steps leaves the ledger as the page-by-page rules do, and reports the same waiters', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const ledger = PageLedger.create(PAGES);
      const model = new Model(PAGES);
      try {
        for (const take of steps) {
          take(ledger, model);
          assertSame(ledger, model);
        }
      } finally {
        ledger.close();
      }
    }),
    { numRuns: 200 },
  );
});

/** What happens in a migration, by what can be in flight. */
type Event =
  | { readonly kind: 'fault'; readonly page: number }
  | { readonly kind: 'prefetch'; readonly from: number; readonly max: number }
  /** A request comes back: installed, or EEXIST, which is the same to the ledger. */
  | { readonly kind: 'arrive'; readonly which: number }
  /** The link is lost: what was asked for is released, and its waiters are asked for again. */
  | { readonly kind: 'lose'; readonly which: number }
  | { readonly kind: 'remove'; readonly first: number; readonly count: number };

const event: fc.Arbitrary<Event> = fc.oneof(
  page.map((page): Event => ({ kind: 'fault', page })),
  fc.tuple(page, fc.integer({ min: 1, max: 9 })).map(([from, max]): Event => ({ kind: 'prefetch', from, max })),
  fc.nat(99).map((which): Event => ({ kind: 'arrive', which })),
  fc.nat(99).map((which): Event => ({ kind: 'lose', which })),
  run.map(({ first, count }): Event => ({ kind: 'remove', first, count })),
);

class Migration {
  readonly ledger = PageLedger.create(PAGES);
  readonly inFlight: { first: number; count: number }[] = [];
  /** Threads that sleep on a page. */
  readonly asleep = new Set<number>();
  readonly resolvedTimes = new Uint8Array(PAGES);

  apply(event: Event): void {
    switch (event.kind) {
      case 'fault':
        this.fault(event.page);
        break;
      case 'prefetch': {
        const claimed = this.ledger.claimRun(event.from, PAGES, event.max);
        if (claimed !== null) this.inFlight.push(claimed);
        break;
      }
      case 'arrive': {
        const [run] = this.inFlight.splice(event.which % Math.max(1, this.inFlight.length), 1);
        if (run !== undefined) this.arrive(run);
        break;
      }
      case 'lose': {
        const [run] = this.inFlight.splice(event.which % Math.max(1, this.inFlight.length), 1);
        if (run === undefined) break;
        const count = this.ledger.release(run.first, run.count, waiting);
        for (const page of reported(count)) {
          assert.ok(this.asleep.has(page), `page ${page} was released with a waiter that nobody noted`);
          assert.equal(this.ledger.fault(page), 'claimed');
          this.inFlight.push({ first: page, count: 1 });
        }
        break;
      }
      case 'remove':
        for (const page of reported(this.ledger.remove(event.first, event.count, waiting))) this.wake(page);
        break;
    }
  }

  fault(page: number): void {
    const claim = this.ledger.fault(page);
    if (claim === 'claimed') this.inFlight.push({ first: page, count: 1 });
    if (claim === 'claimed' || claim === 'waiting') this.asleep.add(page);
    if (claim === 'removed') this.ledger.resolved(page);
  }

  arrive(run: { readonly first: number; readonly count: number }): void {
    for (let page = run.first; page < run.first + run.count; page++) {
      if (this.ledger.state(page) === PAGE.requested) this.resolvedTimes[page] = (this.resolvedTimes[page] ?? 0) + 1;
    }
    for (const page of reported(this.ledger.installed(run.first, run.count, waiting))) this.wake(page);
  }

  wake(page: number): void {
    assert.ok(this.asleep.delete(page), `page ${page} was woken twice, or nobody slept there`);
  }
}

test('any order of faults, prefetches, arrivals, lost links and removals ends whole: each page once, each sleeper woken once', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 120 }), (events) => {
      const migration = new Migration();
      try {
        for (const event of events) migration.apply(event);
        while (migration.inFlight.length > 0 || migration.ledger.nextMissing(0, PAGES) >= 0) {
          migration.apply({ kind: 'prefetch', from: 0, max: 7 });
          migration.apply({ kind: 'arrive', which: 0 });
        }
        assert.equal(migration.ledger.isWhole(), true);
        assert.deepEqual([...migration.asleep], [], 'nobody sleeps any more');
        assert.ok(migration.resolvedTimes.every((times) => times <= 1));
      } finally {
        migration.ledger.close();
      }
    }),
    { numRuns: 300 },
  );
});

test('a claimed run goes over word borders, stops at the limit and at what is not missing', () => {
  const ledger = PageLedger.create(200);
  ledger.fault(150);
  assert.deepEqual(ledger.claimRun(0, 200, 40), { first: 0, count: 40 });
  assert.deepEqual(ledger.claimRun(10, 200, 1000), { first: 40, count: 110 });
  assert.deepEqual(ledger.claimRun(0, 200, MAX_CLAIM_PAGES), { first: 151, count: 49 });
  assert.equal(ledger.claimRun(0, 200, 1), null);
  ledger.close();
});

test('a page that was removed while its request was out does not become present', () => {
  const ledger = PageLedger.create(4);
  ledger.claimRun(0, 4, 4);
  ledger.remove(1, 1, waiting);
  ledger.installed(0, 4, waiting);
  assert.equal(ledger.state(1), PAGE.removed);
  assert.equal(ledger.resolved(1), true);
  assert.equal(ledger.state(1), PAGE.present);
  ledger.close();
});

test('waiters come in pieces where there is little room', () => {
  const ledger = PageLedger.create(100);
  for (const page of [3, 17, 18, 99]) ledger.fault(page);
  const two = new Uint32Array(2);
  assert.equal(ledger.waiters(two), 2);
  assert.deepEqual([...two], [3, 17]);
  assert.equal(ledger.waiters(two, 18), 2);
  assert.deepEqual([...two], [18, 99]);
  assert.equal(ledger.waiters(two, 100), 0);
  ledger.close();
});

test('a handle is one of several: the ledger lives as long as the last of them', () => {
  const first = PageLedger.create(10);
  const second = PageLedger.attach(first.id);
  first.fault(3);
  first.close();
  first.close();
  assert.equal(second.state(3), PAGE.requested);
  assert.equal(second.pageCount, 10);
  assert.equal(
    codeOf(() => first.fault(3)),
    'EBADF',
  );
  const id = second.id;
  second.close();
  assert.equal(
    codeOf(() => PageLedger.attach(id)),
    'ENOENT',
  );
});

test('the install lock does not nest, and is let go with the handle that holds it', () => {
  const ledger = PageLedger.create(1);
  const other = PageLedger.attach(ledger.id);
  ledger.lockShared();
  other.lockShared();
  assert.equal(
    codeOf(() => ledger.lockShared()),
    'EDEADLK',
  );
  assert.equal(
    codeOf(() => ledger.unlockExclusive()),
    'EPERM',
  );
  ledger.unlockShared();
  other.close();
  ledger.lockExclusive();
  assert.equal(
    codeOf(() => PageLedger.attach(ledger.id).lockShared()),
    'EDEADLK',
  );
  assert.equal(
    codeOf(() => PageLedger.attach(ledger.id).lockExclusive()),
    'EDEADLK',
  );
  ledger.unlockExclusive();
  assert.equal(
    codeOf(() => ledger.unlockExclusive()),
    'EPERM',
  );
  ledger.close();
});

test('pages out of range and arrays that are too short are refused', () => {
  const ledger = PageLedger.create(10);
  assert.throws(() => ledger.fault(10), {
    name: 'RangeError',
    message: /page must be a whole number from 0 to 9, not 10/,
  });
  assert.throws(() => ledger.state(-1), RangeError);
  assert.throws(() => ledger.setZero(5, 6), { message: "pages 5 to 11 are not within the ledger's 10" });
  assert.throws(() => ledger.installed(0, 5, new Uint32Array(4)), {
    message: 'waiters must have room for every page of the run',
  });
  assert.throws(() => ledger.claimRun(0, 11, 1), RangeError);
  assert.throws(() => PageLedger.create(0), RangeError);
  assert.throws(() => PageLedger.create(2 ** 33), RangeError);
  ledger.close();
});
