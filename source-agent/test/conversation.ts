/** Streams as a test reads them: one message after the other, and how they end. */
import assert from 'node:assert/strict';
import type { ClientDuplexStream, ClientReadableStream } from '@grpc/grpc-js';
import { ErrorReason, fromServiceError, type PagewakeError } from '@pagewake/agent-kit';
import type { OpenResponse, OpenResponse_Accepted, ZeroRuns } from '@pagewake/proto';

type Event<R> =
  { readonly kind: 'message'; readonly message: R } | { readonly kind: 'end' | 'error'; readonly error?: unknown };

/** Listens from the start: a stream that fails before anybody asks is to be found failed, not to end the process. */
export class Conversation<Q, R> {
  readonly #call: ClientDuplexStream<Q, R>;
  readonly #events: Event<R>[] = [];
  #arrived: () => void = () => undefined;

  constructor(call: ClientDuplexStream<Q, R>) {
    this.#call = call;
    call.on('data', (message: R) => this.#add({ kind: 'message', message }));
    call.on('end', () => this.#add({ kind: 'end' }));
    call.on('error', (error: unknown) => this.#add({ kind: 'error', error }));
    call.resume();
  }

  send(request: Q): void {
    this.#call.write(request);
  }

  async next(): Promise<R> {
    const event = await this.#take();
    if (event.kind === 'message') return event.message;
    throw event.kind === 'error' ? event.error : new Error('the stream ended without another message');
  }

  /** Ends our side, and resolves once the other has ended well. */
  async end(): Promise<void> {
    this.#call.end();
    const { kind } = await this.#take();
    assert.equal(kind, 'end', 'a message nobody asked for, or an error');
  }

  /** The error that the stream ends with. */
  async failure(): Promise<PagewakeError> {
    let event = await this.#take();
    // 'end' comes before 'error' where a stream is cut.
    if (event.kind === 'end') event = await this.#take();
    assert.equal(event.kind, 'error', 'did not fail');
    return fromServiceError(event.kind === 'error' ? event.error : undefined);
  }

  #add(event: Event<R>): void {
    this.#events.push(event);
    this.#arrived();
  }

  async #take(): Promise<Event<R>> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) return event;
      await new Promise<void>((resolve) => (this.#arrived = resolve));
    }
  }
}

export async function failureOf(what: Promise<unknown>): Promise<PagewakeError> {
  try {
    await what;
  } catch (error) {
    return fromServiceError(error);
  }
  return assert.fail('did not fail');
}

/** Name of the reason that a call fails with, or "none". */
export async function reasonOf(what: Promise<unknown>): Promise<string> {
  return what.then(
    () => 'none',
    (error: unknown) => ErrorReason[fromServiceError(error).reason],
  );
}

export interface Opened {
  readonly accepted: OpenResponse_Accepted;
  readonly zeroRuns: readonly ZeroRuns[];
}

export async function readOpen(call: ClientReadableStream<OpenResponse>): Promise<Opened> {
  let accepted: OpenResponse_Accepted | undefined;
  const zeroRuns: ZeroRuns[] = [];
  for await (const message of call as AsyncIterable<OpenResponse>) {
    if (message.part.case === 'accepted') accepted = message.part.value;
    else if (message.part.case === 'zeroRuns') zeroRuns.push(message.part.value);
  }
  assert(accepted !== undefined, 'no Accepted');
  return { accepted, zeroRuns };
}

/** The zero pages of a region, listed one by one. */
export function zeroPages(opened: Opened, region: number): number[] {
  const pages: number[] = [];
  for (const runs of opened.zeroRuns) {
    if (runs.region !== region) continue;
    for (const [i, first] of runs.firstPages.entries()) {
      for (let page = first; page < first + (runs.pageCounts[i] ?? 0); page++) pages.push(page);
    }
  }
  return pages;
}
