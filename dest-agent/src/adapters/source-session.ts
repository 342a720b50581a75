/** Opening and completing the source, on the main thread: everything that is not a page. */
import { connectivityState, type Client } from '@grpc/grpc-js';
import type { GuestLayout } from '@pagewake/core';
import { createClient, PageService, type ServiceClient } from '@pagewake/proto';
import { ErrorReason, PagewakeError, type ClientLinkOptions } from '../kit.ts';
import { openChannel } from '../main-kit.ts';
import { isRecoverable } from './page-source.ts';
import { asSourceError, PROTOCOL_VERSION, SourceOpening, type OnZero } from './source-opening.ts';

const COMPLETE_TIMEOUT_MS = 5000;
const COMPLETE_ATTEMPTS = 3;
/** Longer than grpc-js waits between two tries: that a connection was refused may have been another migration's news, from before the source was there. */
const REFUSED_FOR_MS = 2500;

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

export class SourceSession {
  readonly #channel: Client;
  readonly #client: ServiceClient<typeof PageService>;
  readonly #identity: SourceIdentity;

  constructor(address: string, credentials: ClientLinkOptions, identity: SourceIdentity) {
    this.#channel = openChannel(address, credentials);
    this.#client = createClient(PageService, this.#channel);
    this.#identity = identity;
  }

  /** Resolves where the source can be reached and takes this side's credentials. @throws PagewakeError SOURCE_UNREACHABLE */
  async check(timeoutMs: number): Promise<void> {
    const channel = this.#channel.getChannel();
    let deadline = Date.now() + timeoutMs;
    let why = 'no connection in time';
    try {
      for (;;) {
        const state = channel.getConnectivityState(true);
        if (state === connectivityState.READY) return;
        if (state === connectivityState.TRANSIENT_FAILURE) {
          deadline = Math.min(deadline, Date.now() + REFUSED_FOR_MS);
          why = 'no connection can be made';
        }
        await new Promise<void>((resolve, reject) => {
          channel.watchConnectivityState(state, deadline, (error) => {
            if (error) reject(error);
            else resolve();
          });
        });
      }
    } catch {
      // Late, or closed meanwhile.
      throw new PagewakeError(ErrorReason.SOURCE_UNREACHABLE, `the source agent does not answer: ${why}`);
    }
  }

  /**
   * Opens the VM's memory. Resolves once the source has accepted this destination.
   * @param onZero gets every run of zero pages, in ledger pages, as it is read
   * @param waitUntilPaused the VM may still run; without it the source refuses such a VM
   * @throws PagewakeError: what the source refused, or SOURCE_UNREACHABLE
   */
  async open(layout: GuestLayout, onZero: OnZero, waitUntilPaused: boolean): Promise<SourceOpening> {
    const stream = this.#client.open({
      protocolVersion: PROTOCOL_VERSION,
      ...this.#identity,
      regions: layout.regions.map((r) => ({ pageSizeBytes: r.pageSizeBytes, pageCount: r.pageCount })),
      waitUntilPaused,
    });
    const opening = new SourceOpening(stream, layout, this.#identity.generation, onZero);
    await opening.accepted;
    return opening;
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
        if (!isRecoverable(last) || last.reason === ErrorReason.UNKNOWN_SESSION) break;
      }
    }
    return last;
  }

  close(): void {
    this.#channel.close();
  }
}
