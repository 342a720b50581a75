/** What both lanes share: a bidirectional stream tied to a session, written no faster than it is taken. */
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { toServiceError, type PagewakeError } from '@pagewake/agent-kit';
import type { Frame, FrameMaker } from '../../domain/frame-maker.ts';
import type { VmRegistry } from '../../domain/registry.ts';
import type { Session } from '../../domain/session.ts';
import type { BufferPool } from '../../domain/buffer-pool.ts';
import type { Vm } from '../../domain/vm.ts';

/** A session with what is needed to serve it. */
export interface Served {
  readonly session: Session;
  readonly vm: Vm;
  readonly maker: FrameMaker;
}

export interface LaneContext {
  readonly registry: VmRegistry;
  readonly makerOf: (vm: Vm) => FrameMaker;
  readonly buffers: BufferPool;
  readonly onBug: (error: unknown) => void;
}

type Call<Q, R> = ServerDuplexStream<Q, R>;

/**
 * Subclasses say what to do with a request and with a free turn. Errors anywhere end the stream with their status, once;
 * after that nothing is served.
 */
export abstract class Lane<Q extends { readonly session: Uint8Array }, R> {
  protected readonly context: LaneContext;
  readonly #call: Call<Q, R>;
  #session: Session | undefined;
  /** Set once the VM is paused: the stream may be here before. */
  #served: Served | undefined;
  #detach: () => void = () => undefined;
  #requestsEnded = false;
  #over = false;
  /** The peer is behind: nothing is served until it has caught up. */
  #blocked = false;

  constructor(call: Call<Q, R>, context: LaneContext) {
    this.#call = call;
    this.context = context;
  }

  /** Notes a request. Throws what is wrong with it. `receivedMs`: `performance.now()`. */
  protected abstract accept(request: Q, session: Session, receivedMs: number): void;
  /** Serves what was noted until `ready` is false or a turn is used up. */
  protected abstract serve(): void;
  /** Nothing that was noted waits any more. */
  protected abstract get idle(): boolean;

  start(): void {
    this.#call.on('data', (request: Q) => {
      const receivedMs = performance.now();
      this.attempt(() => this.#receive(request, receivedMs));
    });
    this.#call.on('end', () => {
      this.#requestsEnded = true;
      this.#endIfDone();
    });
    this.#call.on('cancelled', () => this.#finish());
    this.#call.on('close', () => this.#finish());
  }

  /** False: the peer is behind or the stream is over. */
  protected get ready(): boolean {
    return !this.#blocked && !this.#over;
  }

  /** Throws unless the session may be served this very moment. */
  protected checkServable(): Served {
    const { session, vm } = this.#checkSession();
    if (vm.standstill === undefined) throw vm.notPausedError('nothing of it may be asked for yet');
    this.#served ??= { session, vm, maker: this.context.makerOf(vm) };
    return this.#served;
  }

  /**
   * Writes one message. `buffer` held its payload, and goes back to the pool once the message has been serialized: that is when grpc-js calls
   * back, and may be long after `write` where messages queue.
   */
  protected send(message: R, vm: Vm, frame: Frame, buffer: Buffer): void {
    vm.served.add(frame.pageCount, frame.payload.length);
    const more = this.#call.write(message, () => this.context.buffers.give(buffer));
    if (more) return;
    this.#blocked = true;
    // Not read on either: a peer that asks and does not take must not fill our memory with its questions.
    this.#call.pause();
    this.#call.once('drain', () => {
      this.#blocked = false;
      this.#call.resume();
      this.attempt(() => this.serve());
    });
  }

  /** Runs a step; what it throws ends the stream. */
  protected attempt(step: () => void): void {
    if (this.#over) return;
    try {
      step();
      this.#endIfDone();
    } catch (error) {
      this.#fail(error);
    }
  }

  #receive(request: Q, receivedMs: number): void {
    if (this.#session === undefined) {
      const session = this.context.registry.session(request.session);
      if (session.ended !== undefined) throw session.ended;
      this.#session = session;
      this.#detach = session.attach((why: PagewakeError) => this.#fail(why));
    }
    this.accept(request, this.#checkSession().session, receivedMs);
    // A message may bring nothing but the session, and is no question then.
    if (!this.idle) this.checkServable();
    if (this.ready) this.serve();
  }

  /** Throws where the session is over, or all that it was for is done. */
  #checkSession(): { session: Session; vm: Vm } {
    if (this.#session === undefined) throw new Error('served before the session is known');
    const session = this.#session;
    if (session.ended !== undefined) throw session.ended;
    if (session.vm.state === 'completed') throw session.vm.completedError();
    return { session, vm: session.vm };
  }

  #endIfDone(): void {
    if (!this.#requestsEnded || this.#over || !this.idle || this.#blocked) return;
    this.#finish();
    this.#call.end();
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    this.#finish();
    this.#call.emit('error', toServiceError(error, this.context.onBug));
  }

  #finish(): void {
    this.#over = true;
    this.#detach();
  }
}
