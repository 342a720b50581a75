/**
 * PageInstaller: puts the content of requested pages into the VM's memory, and tells the ledger only what the kernel said. The one place where an
 * outcome of the kernel becomes a state of a page.
 */
import type { ContentCall, PagePlace } from '@pagewake/core';
import type { PageLedger } from '../adapters/ledger.ts';
import { PAGE } from '../adapters/ledger.ts';
import { sizeOf, type Outcome, type PlacedRun, type VmMemory } from '../adapters/memory.ts';

export type InstallResult =
  /** Every page of the run that was still requested is present; `waiters` of them had one, woken here. */
  | { readonly kind: 'installed'; readonly pages: number; readonly waiters: Uint32Array }
  /** Stopped: an event is pending. Drain events, then install what is left, from page `done` of the run on. */
  | { readonly kind: 'again'; readonly done: number; readonly waiters: Uint32Array }
  /** Stopped: no memory now. Back off, then install what is left. */
  | { readonly kind: 'no-memory'; readonly done: number; readonly waiters: Uint32Array }
  | { readonly kind: 'exited' }
  /** What must not happen: said with enough to find out why. The pages stay requested and nobody is woken. */
  | { readonly kind: 'alarm'; readonly message: string };

interface Step {
  readonly pages: number;
  readonly passedOver?: boolean;
  readonly stop: 'again' | 'no-memory' | 'exited' | 'alarm' | undefined;
  readonly message?: string;
}

const NOBODY = new Uint32Array(0);
const INSTALLED: InstallResult = { kind: 'installed', pages: 1, waiters: NOBODY };
const PASSED_OVER: InstallResult = { kind: 'installed', pages: 0, waiters: NOBODY };

export const NO_BYTES = new Uint8Array(0);

export class PageInstaller {
  readonly #memory: VmMemory;
  readonly #ledger: PageLedger;
  readonly #minor: boolean;
  #scratch = new Uint32Array(1024);

  /**
   * A check of the ledger, the call and the ledger's transition happen under the ledger's lock: between them nothing may be noted as given back. The
   * kernel lets a remover go on as soon as its event is read (and a VMM as soon as its message is answered), so an install that had looked
   * before and wrote after would bring removed content back.
   * @param minor the ranges are registered for minor faults too
   */
  constructor(memory: VmMemory, ledger: PageLedger, minor = false) {
    this.#memory = memory;
    this.#ledger = ledger;
    this.#minor = minor;
  }

  /**
   * Installs a run whose pages this lane has requested. Pages that are not requested any more (the guest gave them back) are passed
   * over.
   * @param bytes the decoded content, `offset` bytes in; ignored by zeropage
   * @param trapped false: whoever waits asked by message, and no thread sleeps in the kernel that this lane knows of
   */
  install(call: ContentCall, run: PlacedRun, bytes: Uint8Array, offset: number, trapped = true): InstallResult {
    const woken: number[] = [];
    let installed = 0;
    let done = 0;
    while (done < run.pageCount) {
      const rest = slice(run, done, run.pageCount - done);
      const step = this.#step(call, rest, bytes, offset + done * run.region.pageSizeBytes, trapped, woken);
      done += step.pages;
      if (!step.passedOver) installed += step.pages;
      switch (step.stop) {
        case undefined:
          break;
        case 'exited':
          return { kind: 'exited' };
        case 'alarm':
          return { kind: 'alarm', message: step.message ?? 'unknown' };
        case 'again':
        case 'no-memory':
          return { kind: step.stop, done, waiters: Uint32Array.from(woken) };
      }
    }
    return { kind: 'installed', pages: installed, waiters: Uint32Array.from(woken) };
  }

  /** One page that a fault of this lane waits for, which knows its waiters: `waiters` may be empty although somebody was woken. */
  installPage(call: ContentCall, place: PagePlace, bytes: Uint8Array, trapped: boolean): InstallResult {
    if (call === 'copy') {
      const outcome = this.#memory.copyRequested(place, bytes, this.#ledger);
      if (outcome.kind === 'done') return outcome.bytes > 0 ? INSTALLED : PASSED_OVER;
    }
    // What else the kernel may say is not of the hot path, and said again.
    return this.install(call, { region: place.region, firstPage: place.page, pageCount: 1 }, bytes, 0, trapped);
  }

  /** One call of the kernel over the longest prefix that is still requested. */
  #step(
    call: ContentCall,
    rest: PlacedRun,
    bytes: Uint8Array,
    offset: number,
    trapped: boolean,
    woken: number[],
  ): Step {
    this.#ledger.lockShared();
    try {
      return this.#stepUnderLock(call, rest, bytes, offset, trapped, woken);
    } finally {
      this.#ledger.unlockShared();
    }
  }

  #stepUnderLock(
    call: ContentCall,
    rest: PlacedRun,
    bytes: Uint8Array,
    offset: number,
    trapped: boolean,
    woken: number[],
  ): Step {
    const wanted = this.#requestedPrefix(rest);
    // Passed over: the guest gave the page back while its content was on the way.
    if (wanted === 0) return { pages: 1, passedOver: true, stop: undefined };
    const run = slice(rest, 0, wanted);
    const outcome = this.#call(call, run, bytes, offset);
    const pages = Math.floor(outcome.bytes / run.region.pageSizeBytes);
    if (pages > 0) this.#commit(call, slice(run, 0, pages), trapped, woken);
    switch (outcome.kind) {
      case 'done':
        return { pages, stop: undefined };
      case 'again':
        // A range that stopped part-way goes on at once; nothing done means that an event waits to be read.
        return { pages, stop: pages > 0 ? undefined : 'again' };
      case 'present':
        return this.#alreadyThere(call, slice(run, pages, 1), bytes, offset + outcome.bytes, pages, woken);
      case 'no-memory':
        return { pages, stop: 'no-memory' };
      case 'exited':
        return { pages, stop: 'exited' };
      case 'unmapped':
      case 'absent':
      case 'refused':
        return { pages, stop: 'alarm', message: `${call} of ${describe(run)} was refused: ${why(outcome)}` };
    }
  }

  #requestedPrefix(run: PlacedRun): number {
    const first = run.region.firstLedgerPage + run.firstPage;
    if (this.#ledger.isRequested(first, run.pageCount)) return run.pageCount;
    let count = 0;
    while (count < run.pageCount && this.#ledger.state(first + count) === PAGE.requested) count++;
    return count;
  }

  #call(call: ContentCall, run: PlacedRun, bytes: Uint8Array, offset: number): Outcome {
    switch (call) {
      case 'copy':
        return this.#memory.copy(run, bytes, offset);
      case 'write':
        return this.#memory.write(run, bytes, offset);
      case 'store':
        return this.#memory.store(run, bytes, offset);
      case 'zeropage':
        return this.#memory.zeropage(run);
    }
  }

  /** The kernel has them: now the bitmap and then the ledger may say so. Who noted itself as waiting before this is woken after it. */
  #commit(call: ContentCall, run: PlacedRun, trapped: boolean, woken: number[]): void {
    if (this.#scratch.length < run.pageCount) this.#scratch = new Uint32Array(run.pageCount);
    this.#memory.clearBits(run);
    const waiters = this.#ledger.installed(run.region.firstLedgerPage + run.firstPage, run.pageCount, this.#scratch);
    for (let i = 0; i < waiters; i++) {
      const ledgerPage = this.#scratch[i] ?? 0;
      woken.push(ledgerPage);
      // COPY and ZEROPAGE have woken already; write() into the file wakes nobody.
      if (call === 'write' && trapped)
        this.#wake(slice(run, ledgerPage - run.region.firstLedgerPage - run.firstPage, 1));
    }
  }

  /** Lets who sleeps on a page that is in the file go on. Merely woken it would come back with a second event where MINOR is registered. */
  #wake(page: PlacedRun): void {
    if (!this.#minor || this.#memory.continue(page).kind !== 'done') this.#memory.wake(page);
  }

  /**
   * EEXIST on a page that only this lane may install. An agent that died had it installed and did not come to note it, and the guest may have written
   * since: what is there counts. Else somebody filled it behind our back (a VMM that touched its memory before it
   * registered it): right content is fine, any other is a wrong page that a guest may have seen.
   */
  #alreadyThere(
    call: ContentCall,
    page: PlacedRun,
    bytes: Uint8Array,
    offset: number,
    before: number,
    woken: number[],
  ): Step {
    if (this.#memory.isInDoubt(page.region.firstLedgerPage + page.firstPage)) {
      this.#commit('copy', page, true, woken);
      this.#wake(page);
      return { pages: before + 1, stop: undefined };
    }
    const size = sizeOf(page);
    const found = Buffer.alloc(size);
    const read = this.#memory.readBack(page, found);
    const expected =
      call === 'zeropage' ? Buffer.alloc(size) : Buffer.from(bytes.buffer, bytes.byteOffset + offset, size);
    if (read.kind !== 'done' || !found.equals(expected)) {
      const message = `${describe(page)} was in the VM's memory before it was installed, with other content`;
      return { pages: before, stop: 'alarm', message };
    }
    this.#commit('copy', page, true, woken);
    this.#wake(page);
    return { pages: before + 1, stop: undefined };
  }
}

export function slice(run: PlacedRun, from: number, pageCount: number): PlacedRun {
  return { region: run.region, firstPage: run.firstPage + from, pageCount };
}

export function describe(run: PlacedRun): string {
  const last = run.firstPage + run.pageCount - 1;
  return run.pageCount === 1
    ? `page ${run.firstPage} of region ${run.region.index}`
    : `pages ${run.firstPage} to ${last} of region ${run.region.index}`;
}

const why = (outcome: { kind: string; errno?: string }): string =>
  outcome.errno ?? (outcome.kind === 'unmapped' ? 'the range is not mapped any more (ENOENT)' : outcome.kind);
