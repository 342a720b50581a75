/**
 * The bulk lane in a thread of its own, as in the agent, against a source that answers a range just when its pages are about to be given
 * back: so the install and the removals run into each other in every range, and not by luck.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { MemoryTraits, RegionInput } from '@pagewake/core';
import { PageLedger } from '@pagewake/native';
import { VmMemory, type Outcome, type PlacedRun } from '../src/adapters/memory.ts';
import { BulkLane } from '../src/lanes/bulk-lane.ts';
import { BULK_COUNTERS, Counters, FAULT_COUNTERS, FaultHint, type FaultCounter } from '../src/lanes/counters.ts';
import { BulkPeer, honestRange } from './rig.ts';

export interface RacerStart {
  readonly regions: readonly RegionInput[];
  readonly descriptors: {
    readonly uffd: number;
    readonly files: readonly number[];
    readonly bitmap: number | undefined;
  };
  readonly pid: number;
  readonly traits: MemoryTraits;
  readonly ledgerId: number;
  /** Tells how far the removals have come. */
  readonly faultCounters: SharedArrayBuffer;
  /** Every so many pages one is given back. */
  readonly step: number;
}

/** Rests between the installer's look at the ledger and its call: there a removal must find no way in. */
class ParkedMemory extends VmMemory {
  readonly #clock = new Int32Array(new SharedArrayBuffer(4));

  override write(run: PlacedRun, bytes: Uint8Array, offset: number): Outcome {
    this.#park();
    return super.write(run, bytes, offset);
  }

  override copy(run: PlacedRun, bytes: Uint8Array, offset: number): Outcome {
    this.#park();
    return super.copy(run, bytes, offset);
  }

  #park(): void {
    Atomics.wait(this.#clock, 0, 0, 1);
  }
}

const start = workerData as RacerStart;
const port = parentPort;
if (!port) throw new Error('runs as a worker');
const memory = new ParkedMemory(start.regions, { ...start.descriptors, pid: start.pid });
const ledger = PageLedger.attach(start.ledgerId);
const lane: BulkLane = new BulkLane({
  memory,
  ledger,
  traits: start.traits,
  trapped: true,
  counters: new Counters(BULK_COUNTERS),
  hint: new FaultHint(),
  post: (message) => port.postMessage(message),
  postToFaultLane: (message) => port.postMessage(message),
});
const peer = new BulkPeer(() => lane);
/** So far ahead of the removals a range is answered: they arrive while its install rests. */
const LEAD_PAGES = 12;
const faultCounters = new Counters<FaultCounter>(FAULT_COUNTERS, start.faultCounters);
let answered = 0;
let ended = false;

/** The removals come in page order, one event each. */
const removedUpTo = (): number => faultCounters.get('removedEvents') * start.step;

function answer(): void {
  if (ended) return;
  const range = peer.asked[answered];
  if (range && removedUpTo() + LEAD_PAGES >= range.firstPage) {
    answered++;
    peer.reply(range.rangeId, honestRange(range), true);
  }
  setImmediate(answer);
}

port.on('message', () => {
  ended = true;
  memory.close();
  ledger.close();
  port.close();
});
lane.useStream(peer);
setImmediate(answer);
