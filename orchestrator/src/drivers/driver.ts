/** What the orchestrator needs of a VMM, whichever it is. A driver knows one kind of VMM on both sides and nothing of agents. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { UserError } from '@pagewake/agent-kit';
import type { MemorySourceSchema } from '@pagewake/proto';

export interface SourceMemory {
  /** What the VMM calls the guest; undefined: it has no name for it. */
  readonly vmId: string | undefined;
  /** As the source agent will open it. */
  readonly memory: MessageInitShape<typeof MemorySourceSchema>;
  /**
   * Given where the destination's VMM hands its memory over while the guest still runs on the source: then nothing is paused before it has.
   * Such a VMM runs its guest when it is told to and waits for no `ready`, so its memory is always filled by post-copy.
   */
  readonly earlyHandOver?: EarlyHandOver;
}

export interface EarlyHandOver {
  /** The VMM was started with it, so the agent has to listen there; undefined: the VM's name, and `.sock`. */
  readonly vmmSocketName: string | undefined;
  /** The regions of `memory` in their order, as the destination's VMM names them. */
  readonly regionNames: readonly string[];
  /** What to look at where no VMM comes, as a question: "is the destination's QEMU started with …?" */
  question(vmmSocket: string): string;
}

/** All of a paused guest but its memory. */
export interface VmState {
  /** Where the destination's VMM reads it. */
  readonly path: string;
}

/** When something happened, by a clock of the VMM or its host; undefined: it does not say. */
export interface VmmInstant {
  readonly atMs: number | undefined;
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
  /** The last that can be done while the guest runs: what would only cost time later. Left out by drivers that have nothing of the kind. */
  arm?(signal: AbortSignal): Promise<void>;
  /**
   * Resolves once no vCPU and no device touches memory any more. `onStop` is called when the guest stops; a driver that cannot tell calls it
   * before it asks for that.
   */
  pauseSource(onStop: () => void, signal: AbortSignal): Promise<VmmInstant>;
  /** Also after a `pauseSource` that failed: it may have paused. Resolves once the guest runs on the source. */
  resumeSource(): Promise<void>;
  /** Left out by drivers whose VMMs send the state to each other. */
  saveState?(): Promise<VmState>;
  /**
   * Starts the guest on the destination. A VMM that has not handed its memory over yet does that now, to the agent at `vmmSocket`, and waits for
   * `ready`. Resolves once the guest runs. A rejection that is not a `GuestNeverRan` leaves open whether it does.
   */
  startDestination(state: VmState | undefined, vmmSocket: string, signal: AbortSignal): Promise<VmmInstant>;
  /** After the last page, where the caller wants the source's VMM to end. */
  endSource?(): Promise<void>;
  /** Removes what the driver left lying about, e.g. the state. Called once, at the end, whichever it was. */
  close(): Promise<void>;
}

/**
 * The destination VMM's control connection ended before it said that its guest runs. That may be a forwarded socket that broke: only where
 * the agent, which sees the process itself, says that the VMM has exited did the guest never run.
 */
export class ControlLost extends UserError {
  override readonly name = 'ControlLost';
}

/** The VMM refused, was never reached, or is gone: its guest has not run and will not. */
export class GuestNeverRan extends UserError {
  override readonly name = 'GuestNeverRan';
}
