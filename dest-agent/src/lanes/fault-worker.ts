/** The fault lane's thread. Wires the lane to the userfaultfd, the source, the bulk lane and the main thread. */
import { PageLedger } from '../adapters/ledger.ts';
import { VmMemory } from '../adapters/memory.ts';
import { Counters, FAULT_COUNTERS } from './counters.ts';
import { FaultLane } from './fault-lane.ts';
import { FaultTracer } from './fault-trace.ts';
import type { LaneToLane, SourceOpened, ToLane } from './messages.ts';
import { rehearseFaults } from './rehearsal.ts';
import { unregisterAll } from './teardown.ts';
import { runLane, type LaneContext } from './worker.ts';

const STALL_INTERVAL_MS = 100;

interface Attached {
  readonly lane: FaultLane;
  readonly memory: VmMemory;
  readonly tracer: FaultTracer;
  readonly counters: Counters<(typeof FAULT_COUNTERS)[number]>;
}

let attached: Attached | undefined;

function attach(message: Extract<ToLane, { type: 'attach' }>, context: LaneContext): Attached {
  const { memory: given } = message;
  const memory = new VmMemory(given.regions, given);
  const ledger = PageLedger.attach(given.ledgerId);
  const counters = new Counters(FAULT_COUNTERS, context.start.counters);
  const tracer = new FaultTracer(context.start.traceRatio, message.trace, (records) =>
    context.post({ type: 'faults-traced', records }),
  );
  const lane = new FaultLane({
    memory,
    ledger,
    traits: given.traits,
    removeEvents: given.removeEvents,
    vcpuThreads: new Set(message.vcpuThreads),
    counters,
    hint: context.hint,
    tracer,
    tuning: context.start.faults,
    post: (out) => context.post(out),
  });
  context.peer.on('message', (out: LaneToLane) => {
    if (out.type === 'woken') lane.onWoken(out.call, out.pages, out.atMs);
    else lane.onOrphans(out.pages);
  });
  setInterval(() => lane.writeStalls(), STALL_INTERVAL_MS).unref();
  return { lane, memory, tracer, counters };
}

function openStream({ lane, counters }: Attached, { session, faultPort }: SourceOpened, context: LaneContext): void {
  const count = (bytes: number): void => counters.add('wireBytes', bytes);
  lane.useStream(context.link.openFaults(session, faultPort, count, context.streamEvents(lane, 'demand faults')));
}

function handle(message: ToLane, context: LaneContext): void {
  if (message.type === 'attach') {
    attached = attach(message, context);
    attached.lane.hold(message.guestRuns);
    openStream(attached, message.source, context);
    attached.lane.start();
    context.post({ type: 'attached' });
    return;
  }
  if (!attached) return;
  const { lane, memory, tracer } = attached;
  switch (message.type) {
    case 'go':
      lane.go();
      return;
    case 'reopened':
      openStream(attached, message.source, context);
      return;
    case 'stage2':
      lane.onStage2Requests(message.faults);
      return;
    case 'removed':
      lane.onRemovedMessage(message.first, message.count);
      context.post({ type: 'removed-noted', offset: message.offset, len: message.len });
      return;
    case 'detach-source':
      lane.dropStream();
      context.post({ type: 'source-detached' });
      return;
    case 'unregister': {
      lane.drain();
      lane.stop();
      const unregistered = unregisterAll(memory);
      lane.writeStalls();
      tracer.flush();
      context.post({ type: 'unregistered', ...unregistered });
      return;
    }
    case 'pause':
    case 'resume':
      return;
  }
}

await runLane(handle, ({ faults }) => rehearseFaults(faults));
