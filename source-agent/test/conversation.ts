/** Streams as a test reads them: one message after the other, and how they end. */
import assert from 'node:assert/strict';
import type { ClientDuplexStream, ClientReadableStream } from '@grpc/grpc-js';
import { ErrorReason, fromServiceError, type PagewakeError } from '@pagewake/agent-kit';
import type { OpenResponse, OpenResponse_Accepted, OpenResponse_Paused, ZeroRuns } from '@pagewake/proto';

type Event<R> =
  { readonly kind: 'message'; readonly message: R } | { readonly kind: 'end' | 'error'; readonly error?: unknown };

/** Listens from the start: a stream that fails before anybody asks is to be found failed, not to end the process. */
export class Conversation<Q, R> {
  readonly #call: ClientDuplexStream<Q, R> | ClientReadableStream<R>;
  readonly #events: Event<R>[] = [];
  #arrived: () => void = () => undefined;

  constructor(call: ClientDuplexStream<Q, R> | ClientReadableStream<R>) {
    this.#call = call;
    call.on('data', (message: R) => this.#add({ kind: 'message', message }));
    call.on('end', () => this.#add({ kind: 'end' }));
    call.on('error', (error: unknown) => this.#add({ kind: 'error', error }));
    call.resume();
  }

  send(request: Q): void {
    assert('write' in this.#call, 'a stream that is only read');
    this.#call.write(request);
  }

  async next(): Promise<R> {
    const event = await this.#take();
    if (event.kind === 'message') return event.message;
    throw event.kind === 'error' ? event.error : new Error('the stream ended without another message');
  }

  async nextOrEnd(): Promise<R | undefined> {
    const event = await this.#take();
    if (event.kind === 'error') throw event.error;
    return event.kind === 'message' ? event.message : undefined;
  }

  /** Ends our side, and resolves once the other has ended well. */
  async end(): Promise<void> {
    assert('write' in this.#call, 'a stream that is only read');
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
  readonly paused: OpenResponse_Paused;
  readonly zeroRuns: readonly ZeroRuns[];
}

export async function readOpen(call: ClientReadableStream<OpenResponse>): Promise<Opened> {
  const opening = new Opening(call);
  const accepted = await opening.accepted();
  return { accepted, ...(await opening.rest()) };
}

/** An Open, part by part: it may be long from Accepted to Paused. */
export class Opening {
  readonly #parts: Conversation<never, OpenResponse>;
  readonly #call: ClientReadableStream<OpenResponse>;

  constructor(call: ClientReadableStream<OpenResponse>) {
    this.#call = call;
    this.#parts = new Conversation(call);
  }

  async accepted(): Promise<OpenResponse_Accepted> {
    const { part } = await this.#parts.next();
    assert(part.case === 'accepted', `no Accepted: ${String(part.case)}`);
    return part.value;
  }

  async rest(): Promise<Omit<Opened, 'accepted'>> {
    const { part } = await this.#parts.next();
    assert(part.case === 'paused', `no Paused: ${String(part.case)}`);
    const zeroRuns: ZeroRuns[] = [];
    for (;;) {
      const message = await this.#parts.nextOrEnd();
      if (message === undefined) return { paused: part.value, zeroRuns };
      assert(message.part.case === 'zeroRuns', `no ZeroRuns: ${String(message.part.case)}`);
      zeroRuns.push(message.part.value);
    }
  }

  failure(): Promise<PagewakeError> {
    return this.#parts.failure();
  }

  cancel(): void {
    this.#call.cancel();
  }
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
