/** Opening and completing the source, on the main thread: everything that is not a page. */
import type { Client } from '@grpc/grpc-js';
import type { GuestLayout } from '@pagewake/core';
import {
  createClient,
  PageService,
  type OpenResponse_Accepted,
  type ServiceClient,
  type ZeroRuns,
} from '@pagewake/proto';
import { ErrorReason, fromServiceError, openChannel, PagewakeError, type ClientLinkOptions } from '../kit.ts';
import { isRecoverable } from './page-source.ts';

const PROTOCOL_VERSION = 1;
const OPEN_TIMEOUT_MS = 30_000;
const COMPLETE_TIMEOUT_MS = 5000;
const COMPLETE_ATTEMPTS = 3;

export interface SourceIdentity {
  readonly vmId: string;
  readonly generation: number;
  readonly token: Uint8Array;
  readonly destinationId: string;
}

export interface PageTotals {
  readonly pagesByFault: number;
  readonly pagesByPrefetch: number;
  readonly pagesZero: number;
}

/** What an Open is checked against as it comes in. */
class OpenCheck {
  readonly #layout: GuestLayout;
  /** First page per region at which the next run may begin: runs ascend and do not touch. */
  readonly #next: number[];
  zeroPages = 0;

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
  zeroRuns(runs: ZeroRuns, onZero: (first: number, count: number) => void): void {
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
      this.zeroPages += count;
      onZero(region.firstLedgerPage + first, count);
    }
  }

  total(accepted: OpenResponse_Accepted | undefined): void {
    if (!accepted) throw new PagewakeError(ErrorReason.MALFORMED_FRAME, 'the source accepted nothing');
    const expected = this.#layout.pageCount - this.zeroPages;
    if (accepted.dataPages !== BigInt(expected))
      throw new PagewakeError(
        ErrorReason.GEOMETRY_MISMATCH,
        `the source says ${accepted.dataPages} pages of data; by its zero runs there are ${expected}`,
      );
  }
}

/** A source that is stopped in the middle of a call cancels it: nobody here did, so it went away and may come back. */
function asSourceError(error: unknown): PagewakeError {
  const typed = fromServiceError(error, ErrorReason.SOURCE_UNREACHABLE);
  if (typed.reason !== ErrorReason.CANCELLED) return typed;
  return new PagewakeError(ErrorReason.SOURCE_UNREACHABLE, `the source ended the call: ${typed.message}`);
}

export class SourceSession {
  readonly #channel: Client;
  readonly #client: ServiceClient<typeof PageService>;
  readonly #identity: SourceIdentity;

  constructor(address: string, credentials: ClientLinkOptions, identity: SourceIdentity) {
    this.#channel = openChannel(address, credentials);
    this.#client = createClient(PageService, this.#channel);
    this.#identity = identity;
  }

  /**
   * Opens the VM's memory.
   * @param onZero gets every run of zero pages, in ledger pages, as it is read
   * @returns the session for the streams
   * @throws PagewakeError: what the source refused, or SOURCE_UNREACHABLE
   */
  async open(layout: GuestLayout, onZero: (first: number, count: number) => void): Promise<Uint8Array> {
    const check = new OpenCheck(layout);
    let accepted: OpenResponse_Accepted | undefined;
    const stream = this.#client.open(
      {
        protocolVersion: PROTOCOL_VERSION,
        ...this.#identity,
        regions: layout.regions.map((r) => ({ pageSizeBytes: r.pageSizeBytes, pageCount: r.pageCount })),
      },
      { timeoutMs: OPEN_TIMEOUT_MS },
    );
    try {
      for await (const { part } of stream) {
        if (part.case === 'accepted') {
          check.accepted(part.value, this.#identity.generation);
          accepted = part.value;
        } else if (part.case === 'zeroRuns') check.zeroRuns(part.value, onZero);
      }
    } catch (error) {
      stream.cancel();
      throw asSourceError(error);
    }
    check.total(accepted);
    return Uint8Array.from(accepted?.session ?? []);
  }

  /** Says that the VM is whole, a few times where the link fails. @returns why it could not be said, or undefined */
  async complete(session: Uint8Array, totals: PageTotals): Promise<PagewakeError | undefined> {
    const message = {
      pagesByFault: BigInt(totals.pagesByFault),
      pagesByPrefetch: BigInt(totals.pagesByPrefetch),
      pagesZero: BigInt(totals.pagesZero),
    };
    let last: PagewakeError | undefined;
    for (let attempt = 0; attempt < COMPLETE_ATTEMPTS; attempt++) {
      try {
        await this.#client.complete({ session, ...message }, { timeoutMs: COMPLETE_TIMEOUT_MS });
        return undefined;
      } catch (error) {
        last = asSourceError(error);
        if (!isRecoverable(last)) break;
      }
    }
    return last;
  }

  close(): void {
    this.#channel.close();
  }
}
