/**
 * One lane of the stress test, a worker thread. Notes in shared memory, page by page: how often the page was claimed, how often a
 * fault was told to wait for it, and how often a waiter was reported.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { PageLedger } from '../ts/index.ts';

export interface LaneData {
  readonly ledgerId: number;
  readonly lane: 'fault' | 'bulk' | 'remove';
  readonly seed: number;
  readonly claims: Uint8Array;
  readonly waits: Uint8Array;
  readonly reports: Uint8Array;
  /** Set to 1 to start: all lanes at once. */
  readonly gate: Int32Array;
}

const { ledgerId, lane, seed, claims, waits, reports, gate } = workerData as LaneData;
const ledger = PageLedger.attach(ledgerId);
const pages = ledger.pageCount;
const waiting = new Uint32Array(64);

/** A full-period walk: every page once, in an order of this lane's own. `pages` is a power of two. */
function* shuffled(): Generator<number> {
  let page = seed % pages;
  for (let i = 0; i < pages; i++) {
    page = (page * 1_664_525 + 1_013_904_223 + 2 * seed) % pages;
    yield page;
  }
}

function report(count: number): void {
  for (let i = 0; i < count; i++) Atomics.add(reports, waiting[i] ?? 0, 1);
}

function install(first: number, count: number): void {
  ledger.lockShared();
  report(ledger.installed(first, count, waiting));
  ledger.unlockShared();
}

function faults(): void {
  // Some requests are in flight while others come: the other lane must find their waiters.
  const inFlight: number[] = [];
  for (const page of shuffled()) {
    const claim = ledger.fault(page);
    if (claim === 'claimed') {
      Atomics.add(claims, page, 1);
      inFlight.push(page);
    }
    if (claim === 'claimed' || claim === 'waiting') Atomics.add(waits, page, 1);
    if (inFlight.length > 8) install(inFlight.shift() ?? 0, 1);
  }
  for (const page of inFlight) install(page, 1);
}

function bulk(): void {
  let cursor = seed % pages;
  let wrapped = false;
  for (;;) {
    const run = ledger.claimRun(cursor, pages, 1 + (cursor % 64));
    if (run === null) {
      if (wrapped) return;
      wrapped = true;
      cursor = 0;
      continue;
    }
    for (let page = run.first; page < run.first + run.count; page++) Atomics.add(claims, page, 1);
    install(run.first, run.count);
    cursor = run.first + run.count;
  }
}

function removals(): void {
  let left = pages / 32;
  for (const page of shuffled()) {
    if (left-- === 0) return;
    const count = Math.min(1 + (page % 5), pages - page);
    ledger.lockExclusive();
    report(ledger.remove(page, count, waiting));
    ledger.unlockExclusive();
  }
}

Atomics.wait(gate, 0, 0);
({ fault: faults, bulk, remove: removals })[lane]();
ledger.close();
parentPort?.postMessage('done');
