/** One Open of the source as it comes in: accepted at once, final once the source's VM stands still. Everything is checked before it is believed. */
import type { GuestLayout } from '@pagewake/core';
import type { OpenResponse, OpenResponse_Accepted, ZeroRuns } from '@pagewake/proto';
import { ErrorReason, PagewakeError } from '../kit.ts';
import { fromServiceError } from '../main-kit.ts';

export const PROTOCOL_VERSION = 1;
/** For each of the two parts that the source says by itself; a VM may be waited for as long as it runs. */
const PART_TIMEOUT_MS = 30_000;

/** Gets every run of zero pages, in ledger pages, as it is read. */
export type OnZero = (first: number, count: number) => void;

/** The answer to an Open, as grpc-js gives it. */
export type OpenStream = AsyncIterable<OpenResponse> & { cancel(): void };

/** What an Open is checked against as it comes in. */
class OpenCheck {
  readonly #layout: GuestLayout;
  /** First page per region at which the next run may begin: runs ascend and do not touch. */
  readonly #next: number[];
  #zeroPages = 0;

  constructor(layout: GuestLayout) {
    this.#layout = layout;
    this.#next = layout.regions.map(() => 0);
  }

  accepted(accepted: OpenResponse_Accepted, generation: number): void {
    if (accepted.protocolVersion !== PROTOCOL_VERSION)
      throw new PagewakeError(
        ErrorReason.UNSUPPORTED_VERSION,
        `the source speaks version ${accepted.protocolVersion}, this agent ${PROTOCOL_VERSION}`,
      );
    if (accepted.generation !== generation)
      throw new PagewakeError(
        ErrorReason.STALE_GENERATION,
        `the source serves generation ${accepted.generation}, not ${generation}`,
      );
    const shapes = accepted.regions.map((r) => ({ pageSizeBytes: r.pageSizeBytes, pageCount: r.pageCount }));
    const mismatch = this.#layout.mismatch(shapes);
    if (mismatch !== undefined)
      throw new PagewakeError(ErrorReason.GEOMETRY_MISMATCH, `the source's memory is not the VMM's: ${mismatch}`);
  }

  /** Calls back with runs in ledger pages. */
  zeroRuns(runs: ZeroRuns, onZero: OnZero): void {
    const region = this.#layout.regions[runs.region];
    if (!region || runs.firstPages.length !== runs.pageCounts.length)
      throw new PagewakeError(ErrorReason.MALFORMED_FRAME, `zero runs of region ${runs.region} do not make sense`);
    for (const [i, first] of runs.firstPages.entries()) {
      const count = runs.pageCounts[i] ?? 0;
      const from = this.#next[region.index] ?? 0;
      if (count === 0 || first < from || first + count > region.pageCount)
        throw new PagewakeError(
          ErrorReason.GEOMETRY_MISMATCH,
          `the source calls pages ${first} to ${first + count} of region ${region.index} zero; it has ${region.pageCount}, and runs ascend`,
        );
      this.#next[region.index] = first + count;
      this.#zeroPages += count;
      onZero(region.firstLedgerPage + first, count);
    }
  }

  /** Every run has been told: the rest holds data. */
  isAll(dataPages: bigint): boolean {
    return dataPages === BigInt(this.#layout.pageCount - this.#zeroPages);
  }

  total(dataPages: bigint | undefined): void {
    if (dataPages === undefined) throw new PagewakeError(ErrorReason.MALFORMED_FRAME, 'the source accepted nothing');
    if (!this.isAll(dataPages))
      throw new PagewakeError(
        ErrorReason.GEOMETRY_MISMATCH,
        `the source says ${dataPages} pages of data; by its zero runs there are ${this.#layout.pageCount - this.#zeroPages}`,
      );
  }
}

/** A source that is stopped in the middle of a call cancels it: nobody here did, so it went away and may come back. */
export function asSourceError(error: unknown): PagewakeError {
  const typed = fromServiceError(error, ErrorReason.SOURCE_UNREACHABLE);
  if (typed.reason !== ErrorReason.CANCELLED) return typed;
  return new PagewakeError(ErrorReason.SOURCE_UNREACHABLE, `the source ended the call: ${typed.message}`);
}

export class SourceOpening {
  readonly #stream: OpenStream;
  readonly #check: OpenCheck;
  readonly #generation: number;
  readonly #onZero: OnZero;
  readonly #taken = Promise.withResolvers<void>();
  readonly #told = Promise.withResolvers<void>();
  #accepted: OpenResponse_Accepted | undefined;
  #dataPages: bigint | undefined;
  #paused = false;
  #all = false;
  #late: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  /**
   * Resolves once the source's VM stands still and every run of zeros has been told. Rejects with a PagewakeError: what the source refused, or
   * SOURCE_UNREACHABLE.
   */
  get final(): Promise<void> {
    return this.#told.promise;
  }

  constructor(stream: OpenStream, layout: GuestLayout, generation: number, onZero: OnZero) {
    this.#stream = stream;
    this.#check = new OpenCheck(layout);
    this.#generation = generation;
    this.#onZero = onZero;
    // Whoever waits meets the rejection; that nobody does any more is no error of its own.
    this.#told.promise.catch(() => undefined);
    this.#taken.promise.catch(() => undefined);
    void this.#read();
  }

  /** Resolves once the source has accepted this destination; rejects as `final` does. */
  get accepted(): Promise<void> {
    return this.#taken.promise;
  }

  /** Goes into the first message of every stream. */
  get session(): Uint8Array {
    return Uint8Array.from(this.#accepted?.session ?? []);
  }

  get bulkPort(): number {
    return this.#accepted?.bulkPort ?? 0;
  }

  get faultPort(): number {
    return this.#accepted?.faultPort ?? 0;
  }

  /** The VM is known to stand still, so `final` comes by itself. Only of a VM that does the source knows how many pages hold data. */
  get paused(): boolean {
    return this.#paused || (this.#accepted?.dataPages ?? 0n) > 0n;
  }

  /** Nobody waits for the rest. */
  close(): void {
    this.#stream.cancel();
  }

  async #read(): Promise<void> {
    this.#within('whether it accepts this destination');
    try {
      for await (const { part } of this.#stream) this.#take(part);
      this.#paused = true;
      this.#check.total(this.#dataPages);
      this.#told.resolve();
    } catch (error) {
      this.#stream.cancel();
      const typed =
        this.#late === undefined ? asSourceError(error) : new PagewakeError(ErrorReason.SOURCE_UNREACHABLE, this.#late);
      this.#taken.reject(typed);
      this.#told.reject(typed);
    } finally {
      clearTimeout(this.#timer);
    }
  }

  #take(part: OpenResponse['part']): void {
    if (this.#all)
      throw new PagewakeError(ErrorReason.MALFORMED_FRAME, 'the source goes on after all zero runs have come');
    switch (part.case) {
      case 'accepted':
        this.#check.accepted(part.value, this.#generation);
        this.#accepted = part.value;
        this.#dataPages = part.value.dataPages;
        clearTimeout(this.#timer);
        if (this.paused) this.#within('which pages are zero');
        this.#taken.resolve();
        return;
      case 'paused':
        this.#paused = true;
        this.#dataPages = part.value.dataPages;
        this.#within('which pages are zero');
        return;
      case 'zeroRuns':
        this.#paused = true;
        this.#check.zeroRuns(part.value, this.#onZero);
        this.#settleOnceAll();
        return;
      case undefined:
    }
  }

  /** The guest runs nowhere now: the last run is enough, and the end of the stream, some turns behind it, is not waited for. */
  #settleOnceAll(): void {
    if (this.#dataPages === undefined || !this.#check.isAll(this.#dataPages)) return;
    this.#all = true;
    this.#told.resolve();
  }

  #within(what: string): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#late = `the source did not say ${what} within ${PART_TIMEOUT_MS / 1000} s`;
      this.#stream.cancel();
    }, PART_TIMEOUT_MS);
  }
}
