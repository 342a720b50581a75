/**
 * Counters that a lane writes and the main thread reads, on shared memory so that a hot path sends no message for them. Each block has
 * exactly one writer; a reader may see a count that is one event old, never a torn one (aligned 8-byte stores).
 */
import type { InstallCall } from '@pagewake/core';

export const FAULT_COUNTERS = [
  'total',
  'userSpace',
  'stage2',
  'minor',
  'byCopy',
  'byZeropage',
  'byContinue',
  'byWrite',
  'byWake',
  'stage2Exits',
  'stage2ByCopy',
  'stage2ByZeropage',
  'stage2ByContinue',
  'stage2ByWrite',
  'stage2ByWake',
  'fromSource',
  'fromPrefetchInFlight',
  'stallP50Us',
  'stallP99Us',
  'stallMaxUs',
  'removedEvents',
  'pagesInstalled',
  'neighboursInstalled',
  'payloadBytes',
  'wireBytes',
  'badFrames',
] as const;

export const BULK_COUNTERS = ['pagesInstalled', 'payloadBytes', 'wireBytes', 'badFrames', 'rangesInFlight'] as const;

export type FaultCounter = (typeof FAULT_COUNTERS)[number];
export type BulkCounter = (typeof BULK_COUNTERS)[number];

/** By the call that resolved it. */
export const COUNTER_OF_CALL: Readonly<Record<InstallCall, FaultCounter>> = {
  copy: 'byCopy',
  zeropage: 'byZeropage',
  continue: 'byContinue',
  write: 'byWrite',
  store: 'byWrite',
  wake: 'byWake',
};

/** The same, of stage-2 faults alone. */
export const STAGE2_COUNTER_OF_CALL: Readonly<Record<InstallCall, FaultCounter>> = {
  copy: 'stage2ByCopy',
  zeropage: 'stage2ByZeropage',
  continue: 'stage2ByContinue',
  write: 'stage2ByWrite',
  store: 'stage2ByWrite',
  wake: 'stage2ByWake',
};

export class Counters<Name extends string> {
  readonly buffer: SharedArrayBuffer;
  readonly #values: Float64Array;
  readonly #index: ReadonlyMap<Name, number>;

  constructor(names: readonly Name[], buffer = new SharedArrayBuffer(names.length * 8)) {
    this.buffer = buffer;
    this.#values = new Float64Array(buffer);
    this.#index = new Map(names.map((name, index) => [name, index]));
  }

  get(name: Name): number {
    return this.#values[this.#at(name)] ?? 0;
  }

  add(name: Name, amount = 1): void {
    const at = this.#at(name);
    this.#values[at] = (this.#values[at] ?? 0) + amount;
  }

  set(name: Name, value: number): void {
    this.#values[this.#at(name)] = value;
  }

  #at(name: Name): number {
    const index = this.#index.get(name);
    if (index === undefined) throw new RangeError(`no counter ${name}`);
    return index;
  }
}

/** Where the latest fault was: the fault lane writes, the bulk lane moves its cursor there. */
export class FaultHint {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  #seen = 0;

  constructor(buffer = new SharedArrayBuffer(8)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  post(ledgerPage: number): void {
    Atomics.store(this.#words, 1, ledgerPage | 0);
    Atomics.add(this.#words, 0, 1);
  }

  /** The latest fault's page where there was one since the last call. */
  take(): number | undefined {
    const sequence = Atomics.load(this.#words, 0);
    if (sequence === this.#seen) return undefined;
    this.#seen = sequence;
    return Atomics.load(this.#words, 1) >>> 0;
  }
}
