/** What the main thread and the lanes say to each other. Plain data: it is cloned, never shared, but for the counters. */
import type { MessagePort } from 'node:worker_threads';
import type { InstallCall, MemoryTraits, RegionInput } from '@pagewake/core';
import type { ErrorReason } from '../kit.ts';

/** An error that crosses a thread: what is needed to make a typed one on the other side. */
export interface LaneError {
  readonly reason: ErrorReason;
  readonly message: string;
  readonly metadata: Readonly<Record<string, string>>;
}

export interface SourceCredentials {
  readonly tlsCa: string | undefined;
  readonly tlsCert: string | undefined;
  readonly tlsKey: string | undefined;
  readonly serverName: string | undefined;
  readonly allowPlaintext: boolean;
}

/** What an operator may set of the fault lane. */
export interface FaultTuning {
  /** How long its loop stays awake after a fault, microseconds. */
  readonly spinUs: number;
  /** Most pages that one fault brings along, with its own. */
  readonly windowPages: number;
}

/** Given to a lane's worker at its start. */
export interface LaneStart {
  readonly sourceAddress: string;
  readonly credentials: SourceCredentials;
  readonly counters: SharedArrayBuffer;
  readonly hint: SharedArrayBuffer;
  /** The other lane's end of the channel between the two. */
  readonly peer: MessagePort;
  /** 0 to 1: the share of faults whose spans are recorded. */
  readonly traceRatio: number;
  readonly faults: FaultTuning;
  /** A guest waits already: nothing hangs on whether the source can be reached at the start. */
  readonly patient?: boolean;
}

/** The memory of one VM as a lane needs it. Descriptors are the lane's own copies: it closes them. */
export interface AttachedMemory {
  readonly regions: readonly RegionInput[];
  readonly traits: MemoryTraits;
  readonly trapped: boolean;
  readonly removeEvents: boolean;
  readonly uffd: number | undefined;
  readonly files: readonly number[];
  /** Of stage-2 faults: one bit a page of the memory file. */
  readonly bitmap: number | undefined;
  /** The VMM's process where the agent can see it: anonymous memory is read back through it. */
  readonly pid: number | undefined;
  readonly ledgerId: number;
  /** Ledger pages that an agent that died may have installed without noting it. */
  readonly inDoubt?: readonly number[];
}

export interface TraceIds {
  readonly traceId: string;
  readonly spanId: string;
  readonly sampled: boolean;
}

/** The source, opened. */
export interface SourceOpened {
  readonly session: Uint8Array;
  /** Where the source serves Bulk, on the host of its address; 0: at that address. */
  readonly bulkPort: number;
  /** Where it takes faults on connections of their own; 0: only over gRPC. */
  readonly faultPort: number;
}

/** A stage-2 fault that the VMM asks about. */
export interface Stage2Request {
  readonly id: number;
  readonly ledgerPage: number;
  readonly parent: TraceIds | undefined;
}

/** A stage-2 fault's page is there, and the VMM is to be told. */
export interface Stage2Page {
  readonly id: number;
  readonly ledgerPage: number;
}

export type ToLane =
  /** The lane opens its stream and takes faults, but asks for nothing before `go`: the source's VM may still run. */
  | {
      readonly type: 'attach';
      readonly memory: AttachedMemory;
      readonly source: SourceOpened;
      /** It does not wait until it is told `ready`. */
      readonly guestRuns: boolean;
      readonly vcpuThreads: readonly number[];
      readonly trace: TraceIds;
    }
  /** The source's memory is final: pages may be asked for. */
  | {
      readonly type: 'go';
      /** The guest runs nowhere, and its VMM is about to change that. */
      readonly guestStarts: boolean;
    }
  /** The source was opened again: go on where the lost link stopped. */
  | { readonly type: 'reopened'; readonly source: SourceOpened }
  | { readonly type: 'pause' }
  | { readonly type: 'resume' }
  /** Fault lane: stage-2 faults that came as requests, as many as came together. */
  | { readonly type: 'stage2'; readonly faults: readonly Stage2Request[] }
  /** Fault lane: the VMM says that the guest gave this run back, and waits for `removed-noted` before it lets the guest go on. */
  | {
      readonly type: 'removed';
      readonly first: number;
      readonly count: number;
      readonly offset: number;
      readonly len: number;
    }
  /** Let go of the source: its streams are closed, what is in flight is dropped. */
  | { readonly type: 'detach-source' }
  /** Fault lane: the ledger is full: drain, unregister. */
  | { readonly type: 'unregister' };

export type FromLane =
  | { readonly type: 'started' }
  | { readonly type: 'attached' }
  | { readonly type: 'whole' }
  /** The stream to the source ended; the lane waits for `reopened`. */
  | { readonly type: 'lost'; readonly error: LaneError }
  | { readonly type: 'fatal'; readonly error: LaneError }
  | { readonly type: 'vmm-exited' }
  | { readonly type: 'stage2-resolved'; readonly pages: readonly Stage2Page[] }
  | { readonly type: 'removed-noted'; readonly offset: number; readonly len: number }
  | { readonly type: 'source-detached' }
  | { readonly type: 'unregistered'; readonly exited: boolean; readonly refused: string | undefined }
  | { readonly type: 'alarm'; readonly message: string }
  | { readonly type: 'faults-traced'; readonly records: readonly FaultRecord[] };

/** Between the lanes, straight. */
export type LaneToLane =
  /** Bulk installed these pages; each had a waiter, which was woken. */
  | { readonly type: 'woken'; readonly call: InstallCall; readonly pages: Uint32Array; readonly atMs: number }
  /** Bulk gave these pages back uninstalled; each has a waiter, so the fault lane must fetch it. */
  | { readonly type: 'orphans'; readonly pages: Uint32Array };

/** One sampled fault, for its spans. Times are Unix milliseconds with a fraction; ids are lower-case hex. */
export interface FaultRecord {
  readonly traceId: string;
  readonly parentSpanId: string;
  readonly faultSpanId: string;
  readonly requestSpanId: string;
  readonly region: number;
  readonly page: number;
  readonly origin: string;
  readonly call: string;
  readonly encoding: string;
  readonly payloadBytes: number;
  /** What the source says of its own part, nanoseconds. */
  readonly sourceQueueNs: number;
  readonly sourceReadNs: number;
  readonly sourceEncodeNs: number;
  readonly threadId: number;
  readonly readAtMs: number;
  readonly requestedAtMs: number;
  readonly receivedAtMs: number;
  readonly verifiedAtMs: number;
  readonly installedAtMs: number;
}
