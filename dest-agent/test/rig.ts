/**
 * Lanes on the real kernel: memory of another process, a real userfaultfd, the real ledger. Only the source is a double, as
 * the real one cannot be made to lie, to lose its way or to fall silent on command.
 */
import type { TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import type { MemoryTraits, RegionInput } from '@pagewake/core';
import { duplicateDescriptor, PageLedger, UnixListener } from '@pagewake/native';
import { BulkResponseSchema, FaultsResponseSchema, type PageFrame } from '@pagewake/proto';
import { join } from 'node:path';
import { VmMemory } from '../src/adapters/memory.ts';
import type { FaultOnWire, RangeOnWire } from '../src/adapters/page-source.ts';
import { BulkLane } from '../src/lanes/bulk-lane.ts';
import {
  BULK_COUNTERS,
  Counters,
  FAULT_COUNTERS,
  FaultHint,
  type BulkCounter,
  type FaultCounter,
} from '../src/lanes/counters.ts';
import { FaultLane } from '../src/lanes/fault-lane.ts';
import { FaultTracer } from '../src/lanes/fault-trace.ts';
import type { FromLane, LaneToLane } from '../src/lanes/messages.ts';
import { frameOf, PAGE_BYTES } from './pages.ts';
import { temporaryDir, Toucher, type ToucherOptions } from './toucher.ts';
import { until, within } from './wait.ts';

/** The fault lane's stream, with a test at its other end. */
const UNSAMPLED = { traceId: '1'.repeat(32), spanId: '2'.repeat(16), sampled: false };

export class FaultPeer {
  readonly asked: FaultOnWire[] = [];
  cancelled = false;
  /** Answers at once, as an honest source does; undefined: the test answers. */
  answers: ((fault: FaultOnWire) => PageFrame | undefined) | undefined;
  readonly #lane: () => FaultLane;

  constructor(lane: () => FaultLane) {
    this.#lane = lane;
  }

  request(faults: readonly FaultOnWire[]): void {
    this.asked.push(...faults);
    const { answers } = this;
    if (answers) setImmediate(() => faults.forEach((fault) => this.reply(fault.faultId, answers(fault))));
  }

  cancel(): void {
    this.cancelled = true;
  }

  reply(faultId: number, frame: PageFrame | undefined): void {
    if (!this.cancelled)
      this.#lane().onResponse(create(FaultsResponseSchema, frame ? { faultId, frame } : { faultId }));
  }

  /** The n-th request, once it has come. */
  ask(index: number): Promise<FaultOnWire> {
    return until(`request ${String(index)} on the fault lane`, () => this.asked[index]);
  }
}

/** The bulk lane's stream. */
export class BulkPeer {
  readonly asked: RangeOnWire[] = [];
  cancelled = false;
  answers: ((range: RangeOnWire) => PageFrame | undefined) | undefined;
  readonly #lane: () => BulkLane;

  constructor(lane: () => BulkLane) {
    this.#lane = lane;
  }

  request(range: RangeOnWire): void {
    this.asked.push(range);
    const { answers } = this;
    if (answers) setImmediate(() => this.reply(range.rangeId, answers(range), true));
  }

  cancel(): void {
    this.cancelled = true;
  }

  reply(rangeId: number, frame: PageFrame | undefined, rangeDone: boolean): void {
    if (this.cancelled) return;
    this.#lane().onResponse(create(BulkResponseSchema, frame ? { rangeId, frame, rangeDone } : { rangeId, rangeDone }));
  }

  ask(index: number): Promise<RangeOnWire> {
    return until(`request ${String(index)} on the bulk lane`, () => this.asked[index]);
  }
}

export const honestFault = (fault: FaultOnWire): PageFrame => frameOf(fault.page, Math.max(1, fault.pageCount));
export const honestRange = (range: RangeOnWire): PageFrame => frameOf(range.firstPage, range.pageCount);

export interface RigOptions extends ToucherOptions {
  /** Workers of the toucher whose faults are stage-2 faults. */
  readonly vcpus?: readonly number[];
  /** Most pages that a fault brings along. Default: its own alone. */
  readonly windowPages?: number;
  /** The toucher's bitmap comes over too. */
  readonly bitmap?: boolean;
}

export interface Rig {
  readonly toucher: Toucher;
  readonly memory: VmMemory;
  readonly ledger: PageLedger;
  readonly traits: MemoryTraits;
  readonly regions: readonly RegionInput[];
  readonly lane: FaultLane;
  readonly bulk: BulkLane;
  readonly counters: Counters<FaultCounter>;
  readonly bulkCounters: Counters<BulkCounter>;
  readonly posts: readonly FromLane[];
  readonly hint: FaultHint;
  /** A stream of each kind that is not in use yet. */
  faultPeer(): FaultPeer;
  bulkPeer(): BulkPeer;
  /** Copies of the memory's descriptors; the caller closes them. */
  descriptors(): { readonly uffd: number; readonly files: readonly number[]; readonly bitmap: number | undefined };
  /** What the bulk lane says to the fault lane, from wherever it runs. */
  deliver(message: LaneToLane): void;
  posted<K extends FromLane['type']>(type: K): Promise<Extract<FromLane, { type: K }>>;
}

export async function startRig(t: TestContext, options: RigOptions = {}): Promise<Rig> {
  const toucher = await Toucher.start(t, options);
  const fds = await takeOver(t, toucher, whichOf(options));
  const [uffd, file, bitmap] = fds;
  if (uffd === undefined) throw new Error('no userfaultfd came over');
  const regions: RegionInput[] = [
    {
      address: toucher.address,
      sizeBytes: toucher.pages * PAGE_BYTES,
      offset: 0,
      fileOffset: 0,
      pageSizeBytes: PAGE_BYTES,
    },
  ];
  const memory = new VmMemory(regions, { uffd, files: file === undefined ? [] : [file], bitmap, pid: toucher.pid });
  const ledger = PageLedger.create(toucher.pages);
  t.after(() => {
    memory.close();
    ledger.close();
  });
  const traits: MemoryTraits = {
    file: file === undefined ? 'none' : 'shared',
    minor: options.minor ?? false,
    huge: false,
    exactWrite: true,
    writable: true,
    bitmap: options.bitmap ?? false,
  };
  const posts: FromLane[] = [];
  const post = (message: FromLane): void => void posts.push(message);
  const counters = new Counters<FaultCounter>(FAULT_COUNTERS);
  const bulkCounters = new Counters<BulkCounter>(BULK_COUNTERS);
  const hint = new FaultHint();
  const common = { memory, ledger, traits, removeEvents: options.removeEvents ?? false, hint, post };
  const lane = new FaultLane({
    ...common,
    vcpuThreads: new Set((options.vcpus ?? []).map((worker) => toucher.threads[worker] ?? 0)),
    counters,
    tracer: new FaultTracer(0, UNSAMPLED, () => undefined),
    tuning: { spinUs: 0, windowPages: options.windowPages ?? 1 },
  });
  const deliver = (message: LaneToLane): void => {
    if (message.type === 'woken') lane.onWoken(message.call, message.pages, message.atMs);
    else lane.onOrphans(message.pages);
  };
  const bulk = new BulkLane({
    ...common,
    hint: new FaultHint(hint.buffer),
    trapped: true,
    counters: bulkCounters,
    // Never in the same turn: between the lanes is a message port.
    postToFaultLane: (message) => void setImmediate(deliver, message),
  });
  return {
    toucher,
    memory,
    ledger,
    traits,
    regions,
    lane,
    bulk,
    counters,
    bulkCounters,
    posts,
    hint,
    deliver,
    faultPeer: () => new FaultPeer(() => lane),
    bulkPeer: () => new BulkPeer(() => bulk),
    descriptors: () => ({
      uffd: duplicateDescriptor(memory.uffd?.fd ?? -1),
      files: file === undefined ? [] : [duplicateDescriptor(file)],
      bitmap: bitmap === undefined ? undefined : duplicateDescriptor(bitmap),
    }),
    posted: (type) =>
      until(`the lane says ${type}`, () =>
        posts.find((message): message is Extract<FromLane, { type: typeof type }> => message.type === type),
      ),
  };
}

function whichOf({ memory, bitmap = false }: RigOptions): readonly ('uffd' | 'memfd' | 'bitmap')[] {
  if (memory === 'anonymous') return ['uffd'];
  return bitmap ? ['uffd', 'memfd', 'bitmap'] : ['uffd', 'memfd'];
}

/** Has the toucher hand its descriptors over, as a VMM does. The caller owns them. */
export async function takeOver(
  t: TestContext,
  toucher: Toucher,
  which: readonly ('uffd' | 'memfd' | 'bitmap')[],
): Promise<readonly number[]> {
  const path = join(temporaryDir(t), 'vm.sock');
  const { promise, resolve } = Promise.withResolvers<readonly number[]>();
  const listener = UnixListener.listen(path, (connection) => {
    connection.onData((_data, fds) => {
      connection.close();
      resolve(fds);
    });
  });
  toucher.handOver(path, which, '{}');
  try {
    return await within('descriptors from the toucher', promise);
  } finally {
    listener.close();
  }
}
