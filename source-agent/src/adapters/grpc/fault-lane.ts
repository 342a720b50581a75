/** The demand lane: faults up, frames down, in the order in which they were asked. */
import { create } from '@bufbuild/protobuf';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { FaultsResponseSchema, type FaultsRequest, type FaultsResponse, type PageFault } from '@pagewake/proto';
import { checkRun } from '../../domain/geometry.ts';
import type { Session } from '../../domain/session.ts';
import type { ServeTracer } from '../serve-tracer.ts';
import { Lane, type LaneContext } from './lane.ts';
import { frameMessage } from './wire.ts';

export interface FaultLaneOptions {
  readonly compress: boolean;
  readonly tracer: ServeTracer;
}

interface Waiting {
  readonly fault: PageFault;
  readonly receivedMs: number;
  readonly pageSizeBytes: number;
}

export class FaultLane extends Lane<FaultsRequest, FaultsResponse> {
  readonly #options: FaultLaneOptions;
  #waiting: Waiting[] = [];
  #next = 0;

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
      const { pageSizeBytes } = checkRun(vm.regions, fault.region, fault.page, 1);
      this.#waiting.push({ fault, receivedMs, pageSizeBytes });
    }
  }

  protected override get idle(): boolean {
    return this.#next === this.#waiting.length;
  }

  protected override serve(): void {
    while (this.ready && !this.idle) {
      const one = this.#waiting[this.#next++];
      if (one !== undefined) this.#serveOne(one);
    }
    if (!this.idle) return;
    this.#waiting = [];
    this.#next = 0;
  }

  #serveOne({ fault, receivedMs, pageSizeBytes }: Waiting): void {
    const { vm, maker } = this.checkServable();
    const buffer = this.context.buffers.take(pageSizeBytes);
    const frame = maker.make(fault.region, fault.page, 1, buffer, this.#options.compress);
    const message = create(FaultsResponseSchema, { faultId: fault.faultId, frame: frameMessage(frame, receivedMs) });
    this.send(message, vm, frame, buffer);
    this.#options.tracer.served(fault.trace, 'fault', vm.vmId, frame, receivedMs);
  }
}
