/**
 * The bulk lane's thread, at lower priority: on a busy host a fault goes first. Not much lower: vCPUs that spin would starve it (two vCPUs
 * and both agents on two cores: nice 10 took 1.6 times as long as nice 5 until the VM was whole).
 */
import { PageLedger, setThreadNice } from '../adapters/ledger.ts';
import { VmMemory } from '../adapters/memory.ts';
import { BulkLane } from './bulk-lane.ts';
import { BULK_COUNTERS, Counters, type BulkCounter } from './counters.ts';
import type { SourceOpened, ToLane } from './messages.ts';
import { runLane, type LaneContext } from './worker.ts';

const BULK_NICE = 5;

let attached: { readonly lane: BulkLane; readonly counters: Counters<BulkCounter> } | undefined;

function openStream({ session, bulkPort }: SourceOpened, context: LaneContext): void {
  if (!attached) return;
  const { lane, counters } = attached;
  const count = (bytes: number): void => counters.add('wireBytes', bytes);
  lane.useStream(context.link.openBulk(session, bulkPort, count, context.streamEvents(lane, 'bulk')));
}

function handle(message: ToLane, context: LaneContext): void {
  switch (message.type) {
    case 'attach': {
      const { memory: given } = message;
      const counters = new Counters(BULK_COUNTERS, context.start.counters);
      const lane = new BulkLane({
        memory: new VmMemory(given.regions, given),
        ledger: PageLedger.attach(given.ledgerId),
        traits: given.traits,
        trapped: given.trapped,
        counters,
        hint: context.hint,
        post: (out) => context.post(out),
        postToFaultLane: (out) => context.postToPeer(out),
      });
      attached = { lane, counters };
      lane.hold();
      openStream(message.source, context);
      context.post({ type: 'attached' });
      return;
    }
    case 'go':
      attached?.lane.go(message.guestStarts);
      return;
    case 'reopened':
      openStream(message.source, context);
      return;
    case 'pause':
      attached?.lane.pause();
      return;
    case 'resume':
      attached?.lane.resume();
      return;
    case 'detach-source':
      attached?.lane.dropStream();
      context.post({ type: 'source-detached' });
      return;
    case 'stage2':
    case 'removed':
    case 'unregister':
      return;
  }
}

setThreadNice(BULK_NICE);
await runLane(handle, () => Promise.resolve());
