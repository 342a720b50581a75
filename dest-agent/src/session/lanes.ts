/** Both lanes of one migration: started together, told together, ended together. */
import { MessageChannel } from 'node:worker_threads';
import {
  BULK_COUNTERS,
  Counters,
  FAULT_COUNTERS,
  FaultHint,
  type BulkCounter,
  type FaultCounter,
} from '../lanes/counters.ts';
import type {
  AttachedMemory,
  FaultTuning,
  FromLane,
  SourceCredentials,
  SourceOpened,
  ToLane,
  TraceIds,
} from '../lanes/messages.ts';
import type { Unregistered } from '../lanes/teardown.ts';
import { Lane } from './lane.ts';

export interface LanesOptions {
  readonly sourceAddress: string;
  readonly credentials: SourceCredentials;
  readonly traceRatio: number;
  readonly faults: FaultTuning;
  /** See LaneStart. */
  readonly patient?: boolean;
  onMessage(message: FromLane): void;
  onCrash(error: Error): void;
}

export type LaneDescriptors = Pick<AttachedMemory, 'uffd' | 'files' | 'bitmap'>;

/** What both lanes get; descriptors are copied for each. */
export interface LaneWork {
  readonly memory: Omit<AttachedMemory, keyof LaneDescriptors>;
  readonly source: SourceOpened;
  readonly guestRuns: boolean;
  readonly vcpuThreads: readonly number[];
  readonly trace: TraceIds;
  readonly descriptors: () => LaneDescriptors;
}

export class Lanes {
  readonly faultCounters: Counters<FaultCounter>;
  readonly bulkCounters: Counters<BulkCounter>;
  readonly fault: Lane;
  readonly bulk: Lane;

  #attached = false;
  #early: ToLane[] = [];

  constructor(options: LanesOptions) {
    const hint = new FaultHint();
    const { port1, port2 } = new MessageChannel();
    this.faultCounters = new Counters<FaultCounter>(FAULT_COUNTERS);
    this.bulkCounters = new Counters<BulkCounter>(BULK_COUNTERS);
    const common = {
      sourceAddress: options.sourceAddress,
      credentials: options.credentials,
      hint: hint.buffer,
      traceRatio: options.traceRatio,
      faults: options.faults,
      patient: options.patient ?? false,
    };
    this.fault = new Lane(
      new URL('../lanes/fault-worker.ts', import.meta.url),
      { ...common, counters: this.faultCounters.buffer, peer: port1 },
      (message) => options.onMessage(message),
      (error) => options.onCrash(error),
    );
    this.bulk = new Lane(
      new URL('../lanes/bulk-worker.ts', import.meta.url),
      { ...common, counters: this.bulkCounters.buffer, peer: port2 },
      (message) => options.onMessage(message),
      (error) => options.onCrash(error),
    );
  }

  /** They have, or are about to have, a VM's memory. */
  get attached(): boolean {
    return this.#attached;
  }

  /** Both are ready for work. */
  async started(): Promise<void> {
    await Promise.all([this.fault.next('started'), this.bulk.next('started')]);
  }

  /** Gives both lanes the memory; from then on faults are taken, and from `go` on resolved. */
  async attach({ memory, descriptors, ...rest }: LaneWork): Promise<void> {
    this.#attached = true;
    const attached = Promise.all([this.fault.next('attached'), this.bulk.next('attached')]);
    for (const lane of [this.fault, this.bulk])
      lane.post({ type: 'attach', memory: { ...memory, ...descriptors() }, ...rest });
    for (const order of this.#early.splice(0)) this.fault.post(order);
    await attached;
  }

  /** What the VMM asks of the fault lane. Its guest may run before the source is opened: then it waits until there is a lane that can. */
  order(order: ToLane): void {
    if (this.#attached) this.fault.post(order);
    else this.#early.push(order);
  }

  /** Pages that were installed because somebody waited for them, and the others. */
  get pages(): { readonly pagesByFault: number; readonly pagesByPrefetch: number } {
    const { faultCounters: faults, bulkCounters: bulk } = this;
    return {
      pagesByFault: faults.get('pagesInstalled'),
      pagesByPrefetch: bulk.get('pagesInstalled') + faults.get('neighboursInstalled'),
    };
  }

  both(message: ToLane): void {
    this.fault.post(message);
    this.bulk.post(message);
  }

  /** Lets go of the source, then gives the ranges back to the kernel. */
  async unregister(): Promise<Unregistered> {
    await this.detachSource();
    const unregistered = this.fault.next('unregistered');
    this.fault.post({ type: 'unregister' });
    return unregistered;
  }

  async detachSource(): Promise<void> {
    const detached = Promise.all([this.fault.next('source-detached'), this.bulk.next('source-detached')]);
    this.both({ type: 'detach-source' });
    await detached;
  }

  async terminate(): Promise<void> {
    await Promise.all([this.fault.terminate(), this.bulk.terminate()]);
  }
}
