/**
 * The demand lane on a bare connection: the messages of `Faults`, each behind gRPC's prefix, and nothing else. grpc-js and HTTP/2 take longer over a
 * message than the network and the page together (docs/performance.md).
 *
 * What somebody waits for goes first, in the order in which it was asked; runs of neighbours follow, a piece a turn of the event loop, so that
 * a fault that comes meanwhile goes before the rest of them.
 */
import {
  ErrorReason,
  messageOf,
  PagewakeError,
  type BareConnection,
  type BareConnectionEvents,
} from '@pagewake/agent-kit';
import type { LoopSpin } from '@pagewake/native';
import { decodeFaultsRequest, type FaultsRequest, type PageFault } from '@pagewake/proto';
import type { Compress, Frame, FrameMaker } from '../../domain/frame-maker.ts';
import type { VmRegistry } from '../../domain/registry.ts';
import type { Session } from '../../domain/session.ts';
import type { Vm } from '../../domain/vm.ts';
import { lastWord, toTold } from '../last-word.ts';
import type { ServeTracer } from '../serve-tracer.ts';
import { checkFault, frameHead } from './head.ts';
import { FaultQueue, PIECE_BYTES, type AskedFor, type Wanted } from './queue.ts';
import { RequestRate } from './rate.ts';
import type { Slab, SlabPool } from './slab.ts';

export interface FaultConnectionContext {
  readonly registry: VmRegistry;
  readonly makerOf: (vm: Vm) => FrameMaker;
  readonly tracer: ServeTracer;
  readonly slabs: SlabPool;
  readonly compress: Compress;
  /** The loop stays awake for a moment after a request. */
  readonly spin: LoopSpin;
  readonly onBug: (error: unknown) => void;
}

/** Of a trace context's flags. */
const SAMPLED = 1;

export const SLAB_BYTES = 256 * 1024;
export const KEPT_SLABS = 8;

export class FaultConnection implements BareConnectionEvents {
  readonly #connection: BareConnection;
  readonly #context: FaultConnectionContext;
  readonly #faults = new FaultQueue();
  readonly #neighbours = new FaultQueue();
  readonly #rate = new RequestRate();
  #session: Session | undefined;
  #maker: FrameMaker | undefined;
  #detach: () => void = () => undefined;
  #over = false;
  #blocked = false;
  #turnAsked = false;

  constructor(connection: BareConnection, context: FaultConnectionContext) {
    this.#connection = connection;
    this.#context = context;
  }

  onMessage(message: Buffer): void {
    this.#attempt(() => this.#accept(decoded(message)));
  }

  onRead(): void {
    this.#attempt(() => this.#serve());
  }

  onDrain(): void {
    this.#blocked = false;
    this.#attempt(() => this.#serve());
  }

  onGarbage(error: PagewakeError): void {
    this.#fail(error);
  }

  onClose(): void {
    this.#finish();
  }

  #accept(request: FaultsRequest): void {
    const session = (this.#session ??= this.#begin(request.session));
    if (session.ended !== undefined) throw session.ended;
    const receivedMs = performance.now();
    let waitedFor = 0;
    for (const fault of request.faults) {
      const pageSizeBytes = checkFault(session.vm.regions, fault);
      const waiting = { fault: kept(fault), receivedMs, pageSizeBytes, done: 0 };
      if (fault.pageCount > 0) this.#neighbours.push(waiting);
      else {
        this.#faults.push(waiting);
        waitedFor++;
      }
    }
    this.#rate.note(waitedFor, receivedMs);
    if (request.faults.length > 0) this.#context.spin.touch(this.#rate.isOfSeveral(receivedMs));
  }

  #begin(sessionId: Uint8Array): Session {
    const session = this.#context.registry.session(sessionId);
    if (session.ended !== undefined) throw session.ended;
    this.#detach = session.attach((why) => this.#fail(why));
    this.#connection.admit();
    return session;
  }

  #serve(): void {
    let slab: Slab | undefined;
    for (let one = this.#faults.first; one !== undefined && this.#ready; one = this.#faults.first) {
      if (slab !== undefined && !slab.has(one.pageSizeBytes)) slab = this.#send(slab);
      slab ??= this.#context.slabs.take(one.pageSizeBytes);
      if (!this.#ready) break;
      this.#put(one, 1, slab);
      this.#faults.drop();
    }
    if (slab !== undefined) this.#send(slab);
    this.#askForTurn();
  }

  #askForTurn(): void {
    if (this.#turnAsked || this.#neighbours.first === undefined || !this.#ready) return;
    this.#turnAsked = true;
    setImmediate(() => {
      this.#turnAsked = false;
      this.#attempt(() => this.#serveNeighbours());
    });
  }

  /** One piece of the oldest run. */
  #serveNeighbours(): void {
    const run = this.#neighbours.first;
    if (run === undefined || !this.#ready) return;
    const piece = Math.max(run.pageSizeBytes, PIECE_BYTES);
    const slab = this.#context.slabs.take(piece);
    const left = run.fault.pageCount - run.done;
    run.done += this.#put(run, Math.min(left, piece / run.pageSizeBytes), slab);
    if (run.done === run.fault.pageCount) this.#neighbours.drop();
    this.#send(slab);
    this.#askForTurn();
  }

  /** @returns how many pages there were in the frame */
  #put({ fault, receivedMs, pageSizeBytes, done }: AskedFor, pages: number, slab: Slab): number {
    const { vm } = this.#checkServable();
    const { compress, makerOf, tracer } = this.#context;
    const maker = (this.#maker ??= makerOf(vm));
    const frame = maker.make(fault.region, fault.page + done, pages, slab.room(pages * pageSizeBytes), compress);
    slab.add(frameHead(fault.faultId, frame, receivedMs), frame.payload);
    this.#count(vm, frame);
    tracer.served(fault.trace, 'fault', vm.vmId, frame, receivedMs);
    return frame.pageCount;
  }

  #count(vm: Vm, frame: Frame): void {
    vm.served.add(frame.pageCount, frame.payload.length);
  }

  #checkServable(): Session {
    if (this.#session === undefined) throw new Error('served before the session is known');
    if (this.#session.ended !== undefined) throw this.#session.ended;
    if (this.#session.vm.state === 'completed') throw this.#session.vm.completedError();
    if (this.#session.vm.standstill === undefined)
      throw this.#session.vm.notPausedError('nothing of it may be asked for yet');
    return this.#session;
  }

  get #ready(): boolean {
    return !this.#blocked && !this.#over;
  }

  #send(slab: Slab): undefined {
    if (slab.empty) this.#context.slabs.give(slab);
    else this.#write(slab.content(), slab);
    return undefined;
  }

  /** `slab` goes back once the kernel has what was in it. */
  #write(bytes: Buffer, slab: Slab): void {
    this.#blocked = !this.#connection.write(bytes, () => this.#context.slabs.give(slab));
  }

  #attempt(step: () => void): void {
    if (this.#over) return;
    try {
      step();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#over) return;
    this.#finish();
    this.#connection.end(lastWord('faults', toTold(error, this.#context.onBug)));
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#detach();
  }
}

function decoded(message: Buffer): FaultsRequest {
  try {
    return decodeFaultsRequest(message);
  } catch (error) {
    throw new PagewakeError(ErrorReason.INVALID_ARGUMENT, `what came is no message: ${messageOf(error)}`);
  }
}

/** Fields of a message are views of a buffer that the next one takes: what waits keeps a copy of the one that is used later. */
function kept({ faultId, region, page, pageCount, trace }: PageFault): Wanted {
  const sampled = trace !== undefined && (trace.flags & SAMPLED) !== 0;
  const own = sampled
    ? { ...trace, traceId: Uint8Array.from(trace.traceId), spanId: Uint8Array.from(trace.spanId) }
    : undefined;
  return { faultId, region, page, pageCount, trace: own };
}
