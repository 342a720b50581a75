/** The demand lane over gRPC: faults up, frames down, in the order in which they were asked; runs of neighbours after them. */
import { create } from '@bufbuild/protobuf';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { FaultsResponseSchema, type FaultsRequest, type FaultsResponse } from '@pagewake/proto';
import type { Session } from '../../domain/session.ts';
import { checkFault } from '../faults/head.ts';
import { FaultQueue, PIECE_BYTES, type AskedFor } from '../faults/queue.ts';
import type { ServeTracer } from '../serve-tracer.ts';
import { Lane, type LaneContext } from './lane.ts';
import { frameMessage } from './wire.ts';

export interface FaultLaneOptions {
  readonly compress: boolean;
  readonly tracer: ServeTracer;
}

export class FaultLane extends Lane<FaultsRequest, FaultsResponse> {
  readonly #options: FaultLaneOptions;
  readonly #faults = new FaultQueue();
  readonly #neighbours = new FaultQueue();
  #turnAsked = false;

  constructor(
    call: ServerDuplexStream<FaultsRequest, FaultsResponse>,
    context: LaneContext,
    options: FaultLaneOptions,
  ) {
    super(call, context);
    this.#options = options;
  }

  protected override accept(request: FaultsRequest, { vm }: Session, receivedMs: number): void {
    for (const fault of request.faults) {
      const pageSizeBytes = checkFault(vm.regions, fault);
      const queue = fault.pageCount > 0 ? this.#neighbours : this.#faults;
      queue.push({ fault, receivedMs, pageSizeBytes, done: 0 });
    }
  }

  protected override get idle(): boolean {
    return this.#faults.first === undefined && this.#neighbours.first === undefined;
  }

  protected override serve(): void {
    for (let one = this.#faults.first; one !== undefined && this.ready; one = this.#faults.first) {
      this.#faults.drop();
      this.#put(one, 1, one.pageSizeBytes);
    }
    this.#askForTurn();
  }

  #askForTurn(): void {
    if (this.#turnAsked || this.#neighbours.first === undefined || !this.ready) return;
    this.#turnAsked = true;
    setImmediate(() => {
      this.#turnAsked = false;
      this.attempt(() => this.#serveNeighbours());
    });
  }

  /** One piece of the oldest run: a fault that comes meanwhile goes before the rest of it. */
  #serveNeighbours(): void {
    const run = this.#neighbours.first;
    if (run === undefined || !this.ready) return;
    const bytes = Math.max(run.pageSizeBytes, PIECE_BYTES);
    run.done += this.#put(run, Math.min(run.fault.pageCount - run.done, bytes / run.pageSizeBytes), bytes);
    if (run.done === run.fault.pageCount) this.#neighbours.drop();
    this.#askForTurn();
  }

  #put({ fault, receivedMs, done }: AskedFor, pages: number, bufferBytes: number): number {
    const { vm, maker } = this.checkServable();
    const buffer = this.context.buffers.take(bufferBytes);
    const frame = maker.make(fault.region, fault.page + done, pages, buffer, this.#options.compress);
    const message = create(FaultsResponseSchema, { faultId: fault.faultId, frame: frameMessage(frame, receivedMs) });
    this.send(message, vm, frame, buffer);
    this.#options.tracer.served(fault.trace, 'fault', vm.vmId, frame, receivedMs);
    return frame.pageCount;
  }
}
