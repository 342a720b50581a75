/** testvmm on both sides, over its two control sockets (testvmm/README.md). Both VMMs and this program share one host. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MessageInitShape } from '@bufbuild/protobuf';
import { UserError } from '@pagewake/agent-kit';
import type { MemorySourceSchema } from '@pagewake/proto';
import { ControlSocket, RefusedCommand, UnreachableVmm, type Reply } from './control-socket.ts';
import { GuestNeverRan, type SourceMemory, type VmmDriver, type VmmInstant, type VmState } from './driver.ts';

export interface TestVmmOptions {
  readonly sourceSocket: string;
  readonly destinationSocket: string;
  /** Folder for the state of the paused guest; must be readable for both. Default: a fresh one under the system's own for such. */
  readonly stateDir?: string | undefined;
}

/** Looking at a VMM; it answers from memory. */
const ASK_TIMEOUT_MS = 5_000;
/** Only for what an error says. */
const LOOK_TIMEOUT_MS = 2_000;
/** testvmm itself gives a vCPU that does not park 10 s. */
const PAUSE_TIMEOUT_MS = 15_000;
const SAVE_TIMEOUT_MS = 30_000;
/** An eager migration is answered when every page is there: the migration's own end is what ends this wait, not a clock. */
const LOAD_TIMEOUT_MS = 24 * 3600 * 1000;

/** The destination half, shared by every driver whose guest ends up in a testvmm. */
export class TestVmmDestination {
  readonly #control: ControlSocket;

  constructor(path: string) {
    this.#control = new ControlSocket(path, 'destination VMM');
  }

  get path(): string {
    return this.#control.path;
  }

  /** It answers, and has no VM yet. */
  async check(signal: AbortSignal): Promise<void> {
    try {
      await this.#control.command(['stats'], { timeoutMs: ASK_TIMEOUT_MS, signal });
    } catch (error) {
      // "There is no VM yet" is what a free one says.
      if (error instanceof RefusedCommand) return;
      throw error;
    }
    throw new UserError(`the destination VMM at ${this.path} has a VM already; start another one`);
  }

  async start(state: VmState | undefined, vmmSocket: string, signal: AbortSignal): Promise<VmmInstant> {
    if (state === undefined) throw new Error('a test VMM starts from a state');
    try {
      const reply = await this.#control.command(['load', state.path, vmmSocket], {
        timeoutMs: LOAD_TIMEOUT_MS,
        signal,
      });
      return instant(reply, 'resumed_at_ns');
    } catch (error) {
      if (error instanceof RefusedCommand || error instanceof UnreachableVmm) {
        throw new GuestNeverRan(error.message, 1, { cause: error });
      }
      throw error;
    }
  }
}

export class TestVmmDriver implements VmmDriver {
  readonly sharedClock = true;
  readonly hasSourceGuest = true;
  readonly #source: ControlSocket;
  readonly #destination: TestVmmDestination;
  readonly #stateDir: string | undefined;
  #ownFolder: string | undefined;

  constructor(options: TestVmmOptions) {
    this.#source = new ControlSocket(options.sourceSocket, 'source VMM');
    this.#destination = new TestVmmDestination(options.destinationSocket);
    this.#stateDir = options.stateDir;
  }

  describe(): string {
    return `testvmm at ${this.#source.path} to ${this.#destination.path}`;
  }

  async check(signal: AbortSignal): Promise<void> {
    const stats = await this.#source.command(['stats'], { timeoutMs: ASK_TIMEOUT_MS, signal });
    if (stats['state'] !== 'running') {
      throw new UserError(
        `the source VMM at ${this.#source.path} is not running its guest but ${String(stats['state'])}`,
      );
    }
    await this.#destination.check(signal);
  }

  async sourceState(): Promise<string | undefined> {
    try {
      const { state } = await this.#source.command(['stats'], { timeoutMs: LOOK_TIMEOUT_MS });
      return typeof state === 'string' ? state : undefined;
    } catch {
      return undefined;
    }
  }

  async describeMemory(signal: AbortSignal): Promise<SourceMemory> {
    const reply = await this.#source.command(['memory'], { timeoutMs: ASK_TIMEOUT_MS, signal });
    return {
      vmId: typeof reply['vm'] === 'string' ? reply['vm'] : undefined,
      memory: memoryFrom(reply, this.#source.path),
    };
  }

  async pauseSource(onStop: () => void): Promise<VmmInstant> {
    onStop();
    return instant(await this.#source.command(['pause'], { timeoutMs: PAUSE_TIMEOUT_MS }), 'paused_at_ns');
  }

  async resumeSource(): Promise<void> {
    await this.#source.command(['resume'], { timeoutMs: PAUSE_TIMEOUT_MS });
  }

  async saveState(): Promise<VmState> {
    this.#ownFolder ??= await mkdtemp(join(this.#stateDir ?? tmpdir(), 'pagewake-state-'));
    const path = join(this.#ownFolder, 'state');
    await this.#source.command(['save', path], { timeoutMs: SAVE_TIMEOUT_MS });
    return { path };
  }

  startDestination(state: VmState | undefined, vmmSocket: string, signal: AbortSignal): Promise<VmmInstant> {
    return this.#destination.start(state, vmmSocket, signal);
  }

  async close(): Promise<void> {
    if (this.#ownFolder !== undefined) await rm(this.#ownFolder, { recursive: true, force: true });
  }
}

function instant(reply: Reply, field: string): VmmInstant {
  const value = reply[field];
  return { atMs: typeof value === 'number' ? value / 1e6 : undefined };
}

/** The reply to `memory` as the source agent wants it. Exported for its test. */
export function memoryFrom(reply: Reply, where: string): MessageInitShape<typeof MemorySourceSchema> {
  const bad = (what: string): UserError =>
    new UserError(`the source VMM at ${where} described its memory without ${what}; is it a testvmm of this version?`);
  const whole = (value: unknown, what: string): number => {
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw bad(what);
    return value;
  };
  const regions = reply['regions'];
  if (!Array.isArray(regions) || regions.length === 0) throw bad('regions');
  const described = regions.map((region: unknown, index) => {
    const fields = (typeof region === 'object' && region !== null ? region : {}) as Reply;
    const field = (name: string): number => whole(fields[name], `a usable "${name}" of region ${String(index)}`);
    const pageSizeBytes = field('page_size');
    const sizeBytes = field('size');
    if (pageSizeBytes === 0 || sizeBytes % pageSizeBytes !== 0) throw bad(`whole pages in region ${String(index)}`);
    return { fields, field, geometry: { pageSizeBytes, pageCount: sizeBytes / pageSizeBytes } };
  });
  const path = reply['path'];
  if (typeof path === 'string') {
    const value = {
      path,
      regions: described.map(({ field, geometry }) => ({ geometry, fileOffset: BigInt(field('file_offset')) })),
    };
    return { kind: { case: 'file', value } };
  }
  const value = {
    pid: whole(reply['pid'], 'its pid'),
    regions: described.map(({ field, geometry }) => ({ geometry, address: BigInt(field('address')) })),
  };
  return { kind: { case: 'process', value } };
}
