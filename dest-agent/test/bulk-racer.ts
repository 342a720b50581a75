/** The bulk lane in a thread of its own, as in the agent, against a source that answers every range at once. */
import { parentPort, workerData } from 'node:worker_threads';
import type { MemoryTraits, RegionInput } from '@pagewake/core';
import { PageLedger } from '@pagewake/native';
import { VmMemory } from '../src/adapters/memory.ts';
import { BulkLane } from '../src/lanes/bulk-lane.ts';
import { BULK_COUNTERS, Counters, FaultHint } from '../src/lanes/counters.ts';
import { BulkPeer, honestRange } from './rig.ts';

export interface RacerStart {
  readonly regions: readonly RegionInput[];
  readonly descriptors: { readonly uffd: number; readonly file: number | undefined };
  readonly pid: number;
  readonly traits: MemoryTraits;
  readonly ledgerId: number;
}

const start = workerData as RacerStart;
const port = parentPort;
if (!port) throw new Error('runs as a worker');
const memory = new VmMemory(start.regions, { ...start.descriptors, pid: start.pid });
const ledger = PageLedger.attach(start.ledgerId);
const lane: BulkLane = new BulkLane({
  memory,
  ledger,
  traits: start.traits,
  trapped: true,
  removeEvents: true,
  counters: new Counters(BULK_COUNTERS),
  hint: new FaultHint(),
  post: (message) => port.postMessage(message),
  postToFaultLane: (message) => port.postMessage(message),
});
const peer = new BulkPeer(() => lane);
peer.answers = honestRange;
port.on('message', () => {
  memory.close();
  ledger.close();
  port.close();
});
lane.useStream(peer);
