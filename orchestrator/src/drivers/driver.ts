/** What the orchestrator needs of a VMM, whichever it is. A driver knows one kind of VMM on both sides and nothing of agents. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { UserError } from '@pagewake/agent-kit';
import type { MemorySourceSchema } from '@pagewake/proto';

export interface SourceMemory {
  /** What the VMM calls the guest; undefined: it has no name for it. */
  readonly vmId: string | undefined;
  /** As the source agent will open it. */
  readonly memory: MessageInitShape<typeof MemorySourceSchema>;
}

/** All of a paused guest but its memory. */
export interface VmState {
  /** Where the destination's VMM reads it. */
  readonly path: string;
}

/** When something happened, by the VMM's own monotonic clock; undefined: it does not say. */
export interface VmmInstant {
  readonly monotonicMs: number | undefined;
}

export interface VmmDriver {
  /** For people: "testvmm at /run/a.sock to /run/b.sock". */
  describe(): string;
  /**
   * Both instants come from one clock, so their difference means something: both VMMs run under one kernel.
   */
  readonly sharedClock: boolean;
  /** False: there is no guest that runs on the source (a snapshot), so there is none to resume. */
  readonly hasSourceGuest: boolean;
  /** Before the blackout: do both sides answer, and is the destination free? Changes nothing. */
  check(signal: AbortSignal): Promise<void>;
  /**
   * How the guest is on the source right now: "running", "paused", or what else its VMM calls it; undefined: nobody says. Never rejects,
   * and takes no longer than a few seconds. Left out by drivers that cannot look.
   */
  sourceState?(): Promise<string | undefined>;
  describeMemory(signal: AbortSignal): Promise<SourceMemory>;
  /** Resolves once no vCPU and no device touches memory any more. */
  pauseSource(): Promise<VmmInstant>;
  /** Also after a `pauseSource` that failed: it may have paused. */
  resumeSource(): Promise<void>;
  saveState(): Promise<VmState>;
  /**
   * Starts the guest on the destination: the VMM hands its memory to the agent at `vmmSocket` and waits for `ready`. Resolves once the guest runs.
   * A rejection that is not a `GuestNeverRan` leaves open whether it does.
   */
  startDestination(state: VmState, vmmSocket: string, signal: AbortSignal): Promise<VmmInstant>;
  /** Removes what the driver left lying about, e.g. the state. Called once, at the end, whichever it was. */
  close(): Promise<void>;
}

/** The VMM refused, or was never reached: its guest has not run and will not. */
export class GuestNeverRan extends UserError {
  override readonly name = 'GuestNeverRan';
}
