/**
 * The order in which prefetch asks for what nobody has touched yet: nearest the latest fault first, then onwards, then
 * around. It owns no page state: the ledger's claim decides, and "nothing left" is the ledger's word, not the cursor's.
 */
export interface ClaimSource {
  /** Claims the first missing run at or after `from` and before `end`, at most `maxPages` long. */
  claimRun(from: number, end: number, maxPages: number): { readonly first: number; readonly count: number } | null;
}

export interface PrefetchSpan {
  readonly first: number;
  readonly end: number;
  /** The longest run to ask for at once, in pages of this span. */
  readonly maxPages: number;
}

export class PrefetchCursor {
  readonly #spans: readonly PrefetchSpan[];
  readonly #end: number;
  #next = 0;

  /** @param spans one a region, ascending and without gaps, in ledger pages */
  constructor(spans: readonly PrefetchSpan[]) {
    this.#spans = spans;
    this.#end = spans.at(-1)?.end ?? 0;
  }

  /** A fault was seen at this page: go on with the block around it. */
  moveTo(ledgerPage: number): void {
    const span = this.#spanAt(ledgerPage);
    if (!span) return;
    this.#next = ledgerPage - ((ledgerPage - span.first) % span.maxPages);
  }

  /**
   * The next run, claimed; undefined where nothing is missing.
   * @param share of the longest run
   */
  claim(ledger: ClaimSource, share = 1): { readonly first: number; readonly count: number } | undefined {
    const next = this.#next;
    return this.#claimBetween(ledger, next, this.#end, share) ?? this.#claimBetween(ledger, 0, next, share);
  }

  #claimBetween(
    ledger: ClaimSource,
    from: number,
    end: number,
    share: number,
  ): { first: number; count: number } | undefined {
    for (const span of this.#spans) {
      const start = Math.max(from, span.first);
      const stop = Math.min(end, span.end);
      if (start >= stop) continue;
      const run = ledger.claimRun(start, stop, Math.max(1, Math.floor(span.maxPages * share)));
      if (run) {
        this.#next = run.first + run.count;
        return run;
      }
    }
    return undefined;
  }

  #spanAt(ledgerPage: number): PrefetchSpan | undefined {
    return this.#spans.find((s) => ledgerPage >= s.first && ledgerPage < s.end);
  }
}
