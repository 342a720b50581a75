/**
 * A thread that has just started runs its first faults as code that nobody has compiled yet: the very first of them, for which the destination's VMM waits
 * inside the blackout, took 5 ms, and the hundred with which a guest begins 1 ms each, where the thousandth takes 0.1 ms (docs/performance.md). So
 * before the source is told of anything the lane resolves some hundred faults of nobody, in memory that is its own.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { PageLedger, UFFD_EVENT, UFFD_EVENT_BATCH, UFFD_EVENT_FIELDS } from '../adapters/ledger.ts';
import { VmMemory } from '../adapters/memory.ts';
import { RehearsalSource } from '../adapters/rehearsal-source.ts';
import { Counters, FAULT_COUNTERS, FaultHint } from './counters.ts';
import { FaultIntake } from './fault-intake.ts';
import { FaultLane } from './fault-lane.ts';
import { FaultTracer } from './fault-trace.ts';
import type { FaultTuning } from './messages.ts';

const PAGE_BYTES = 4096;
const PAGES = 512;
/** Each on new memory. */
const ROUNDS = 4;
/** Odd, and not small: comes by all pages, and seldom by neighbours. */
const STEP = 173;
const NOBODY = { traceId: '0'.repeat(32), spanId: '0'.repeat(16), sampled: false };
/** Any address will do: nothing is at it. */
const ADDRESS = 2 ** 40;

export interface Rehearsed {
  readonly faults: number;
  /** All of them were resolved. */
  readonly whole: boolean;
}

export async function rehearseFaults(tuning: FaultTuning): Promise<Rehearsed> {
  let faults = 0;
  let whole = true;
  for (let round = 0; round < ROUNDS; round++) {
    // With windows most touches find their page there, so every other round goes without.
    const done = oneRound(round % 2 === 0 ? 1 : tuning.windowPages);
    faults += done.faults;
    whole &&= done.whole;
    await nextTurn();
  }
  return { faults, whole };
}

function oneRound(windowPages: number): Rehearsed {
  const sizeBytes = PAGES * PAGE_BYTES;
  const regions = [{ address: ADDRESS, sizeBytes, offset: 0, pageSizeBytes: PAGE_BYTES, fileOffset: 0 }];
  const memory = VmMemory.ofItsOwn(regions, sizeBytes);
  const ledger = PageLedger.create(PAGES);
  const counters = new Counters(FAULT_COUNTERS);
  const source = new RehearsalSource(PAGE_BYTES, PAGES);
  const lane = new FaultLane({
    ...{ memory, ledger, counters, tuning: { spinUs: 0, windowPages }, hint: new FaultHint(), vcpuThreads: new Set() },
    traits: { file: 'shared', minor: false, huge: false, exactWrite: true, writable: true, bitmap: false },
    removeEvents: false,
    tracer: new FaultTracer(0, NOBODY, () => undefined),
    post: () => undefined,
  });
  lane.useStream(source);
  const events = new EventScript();
  // Nobody waits in the kernel, so the lane hears of its faults as of those that come on the VMM's channel.
  const intake = new FaultIntake(events, memory.layout, undefined, {
    onFault: ({ place: { page } }) => lane.onStage2Requests([{ id: page, ledgerPage: page, parent: undefined }]),
    onRemoved: () => undefined,
    onDrained: () => undefined,
    onClosed: () => undefined,
    onAlarm: () => undefined,
  });
  intake.start();
  for (let i = 0; i < PAGES; i++) {
    events.say(ADDRESS + ((i * STEP) % PAGES) * PAGE_BYTES);
    source.answer((response) => lane.onResponse(response));
  }
  lane.stop();
  const whole = ledger.isWhole();
  memory.close();
  ledger.close();
  return { faults: counters.get('total'), whole };
}

/** In the place of a userfaultfd: one event at a time. */
class EventScript {
  #events: Float64Array = new Float64Array(UFFD_EVENT_BATCH * UFFD_EVENT_FIELDS);
  #onEvents: (count: number) => void = () => undefined;

  poll(events: Float64Array, onEvents: (count: number) => void): void {
    this.#events = events;
    this.#onEvents = onEvents;
  }

  drain(): number {
    return 0;
  }

  say(address: number): void {
    this.#events.set([UFFD_EVENT.pagefault, address, 0, 0, 0]);
    this.#onEvents(1);
  }
}
