/** What is kept of a migration for the agent that comes after this one, should this one die. */
import type { Dialect, Tier } from '@pagewake/core';
import { z } from 'zod';
import { ErrorReason, type StateFolder } from '../kit.ts';

/** How far a migration is, as the ledger's file says: one store, where writing a record would cost the guest time. */
export const STAGE = {
  /** Nothing was delivered and no guest runs on this memory. */
  held: 0,
  /** Pages may have been delivered, and a guest may run on them. */
  live: 1,
  /** The kernel has the ranges back: the VM is whole. */
  givenBack: 2,
} as const;

const TIERS = [
  'guest-memfd-full',
  'guest-memfd-eager',
  'memfd-userfault',
  'memfd',
  'anonymous',
] as const satisfies readonly Tier[];

const DIALECT_NAMES = ['pagewake/1', 'firecracker', 'firecracker-secret-free'] as const satisfies readonly Dialect[];

const region = z.strictObject({
  address: z.int(),
  sizeBytes: z.int(),
  offset: z.int(),
  pageSizeBytes: z.int(),
  file: z.int().nonnegative(),
  fileOffset: z.int(),
  gpaStart: z.int().optional(),
  name: z.string().optional(),
});

const handedOver = z.strictObject({
  dialect: z.enum(DIALECT_NAMES),
  /** The VMM: its pid, when that process began, and the namespace in which it has that pid. 0: it cannot be seen. */
  pid: z.int(),
  began: z.string(),
  pidNamespace: z.string(),
  /** By device and inode. Open in the VMM, so nobody else can have the same. */
  files: z.array(z.string()),
  regions: z.array(region),
});

const traceId = z.string().regex(/^[0-9a-f]{32}$/);
const spanId = z.string().regex(/^[0-9a-f]{16}$/);

const count = z.number();
const counters = z.record(z.string(), count);

/** How it ended: what Get and Watch say of it, also to an orchestrator that was looking the other way when the agent died. */
const ended = z.strictObject({
  phase: z.enum(['completed', 'failed', 'cancelled']),
  error: z
    .strictObject({ reason: z.enum(ErrorReason), message: z.string(), metadata: z.record(z.string(), z.string()) })
    .optional(),
  tier: z.enum(TIERS).optional(),
  mode: z.enum(['post-copy', 'eager']).optional(),
  modeReason: z.string(),
  fillingMs: count,
  linkLosses: count,
  ledger: z.strictObject({ total: count, unresolved: count, zeroAtOpen: count, removed: count }),
  faults: counters,
  bulk: counters,
  atMs: count,
});

export const migrationRecord = z.strictObject({
  vmId: z.string().min(1),
  sourceAddress: z.string().min(1),
  generation: z.int().positive(),
  tokenHex: z.string().regex(/^([0-9a-f]{2})*$/),
  destinationId: z.string().min(1),
  wantedMode: z.enum(['post-copy', 'eager']).optional(),
  vmmSocket: z.string().min(1),
  regionNames: z.array(z.string()),
  startedAtMs: z.number(),
  trace: z.strictObject({ traceId, spanId, sampled: z.boolean(), parentSpanId: spanId.optional() }),
  memory: handedOver.optional(),
  /** Prefetch rests until somebody resumes it. */
  prefetchPaused: z.boolean().optional(),
  /** Ledger pages that may be in the memory although they are called missing: asked for as an agent died, and no file tells. */
  inDoubt: z.array(z.int().nonnegative()).optional(),
  /** Given up, and nobody knows whether everybody has been told: whoever takes this up tells them. */
  givenUp: z.strictObject({ reason: z.enum(ErrorReason), message: z.string() }).optional(),
  ended: ended.optional(),
});

export type MigrationRecord = z.output<typeof migrationRecord>;
export type Ended = z.output<typeof ended>;
/** The memory that was handed over, and by whom. */
export type HandedOver = z.output<typeof handedOver>;

/** One migration's place in the state folder. */
export class RecordKeeper {
  readonly #folder: StateFolder;
  readonly #name: string;
  #record: MigrationRecord;

  constructor(folder: StateFolder, migrationId: string, record: MigrationRecord) {
    this.#folder = folder;
    this.#name = migrationId;
    this.#record = record;
  }

  get record(): MigrationRecord {
    return this.#record;
  }

  get ledgerPath(): string {
    return this.#folder.pathOf(this.#name, 'ledger');
  }

  update(change: Partial<MigrationRecord>): void {
    this.#record = { ...this.#record, ...change };
    this.#folder.write(this.#name, this.#record);
  }

  /** The migration is over, and everybody who has to know it does: only how it ended is kept, and nothing that opens a source. */
  end(ended: Ended): void {
    this.#folder.remove(this.#name);
    this.update({ ended, tokenHex: '' });
  }
}
