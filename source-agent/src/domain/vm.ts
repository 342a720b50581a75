/** One generation of one VM: its memory, its state, its reader. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import type { GuestImage, Region } from './guest-image.ts';
import { Served } from './served.ts';
import { Session } from './session.ts';
import { transition, type VmState } from './vm-state.ts';
import { ZeroTable } from './zero-table.ts';

/** What was found when the VM was paused. */
export interface Standstill {
  readonly zeros: ZeroTable;
  readonly scanMs: number;
}

/** What has to outlive the agent, so that the next one serves on and lets nothing run twice. A completed VM has no need of it. */
export interface VmRecord {
  readonly vmId: string;
  readonly generation: number;
  readonly tokenDigestHex: string;
  readonly registeredAtMs: number;
  readonly state: Exclude<VmState, 'completed'>;
  /** Empty unless a destination was told that the VM stands still. */
  readonly destinationId: string;
}

/** Hears of every change before anybody else does. Never throws. */
export interface VmKeeper {
  changed(vm: Vm): void;
  /** The generation is over. */
  gone(vm: Vm): void;
}

export class Vm {
  readonly vmId: string;
  readonly generation: number;
  readonly registeredAtMs: number;
  readonly regions: readonly Region[];
  readonly image: GuestImage;
  /** Whether its pages may be asked for, and what went into frames of this generation. */
  readonly served = new Served();
  readonly #tokenDigest: Buffer;
  readonly #keeper: VmKeeper | undefined;
  #state: VmState = 'registered';
  #standstill: Standstill | undefined;
  /** From `registered` on: a destination may come before the VM is paused. */
  #session: Session | undefined;
  /** Whoever it served before this agent began may have read anything. */
  #servedBefore = false;

  /** As the record says. Throws as `pause` does. */
  constructor(record: VmRecord, image: GuestImage, keeper?: VmKeeper) {
    this.vmId = record.vmId;
    this.generation = record.generation;
    this.registeredAtMs = record.registeredAtMs;
    this.image = image;
    this.regions = image.regions;
    this.#tokenDigest = Buffer.from(record.tokenDigestHex, 'hex');
    if (record.state !== 'registered') this.pause();
    if (record.state === 'serving') {
      // Nobody knows this session: it keeps the place for its destination, which opens anew.
      this.open(record.destinationId, false);
      this.#servedBefore = true;
    }
    // From here on: what was read needs no writing.
    this.#keeper = keeper;
  }

  get record(): VmRecord | undefined {
    const { vmId, generation, registeredAtMs } = this;
    const state = this.#state;
    if (state === 'completed') return undefined;
    const destinationId = state === 'serving' ? (this.#session?.destinationId ?? '') : '';
    return {
      vmId,
      generation,
      registeredAtMs,
      tokenDigestHex: this.#tokenDigest.toString('hex'),
      state,
      destinationId,
    };
  }

  /** A destination has read of it, as far as anybody can know. */
  get wasRead(): boolean {
    return this.#state === 'serving' && (this.pagesServed > 0 || this.#servedBefore);
  }

  get state(): VmState {
    return this.#state;
  }

  get pagesServed(): number {
    return this.served.pages;
  }

  get payloadBytes(): number {
    return this.served.payloadBytes;
  }

  get session(): Session | undefined {
    return this.#session;
  }

  /** Set from READY on. */
  get standstill(): Standstill | undefined {
    return this.#standstill;
  }

  /** Over digests, so that neither content nor length of the right token shows in the time this takes. */
  acceptsToken(token: Uint8Array): boolean {
    return timingSafeEqual(this.#tokenDigest, digestOf(token));
  }

  /**
   * The VM stands still: its holes are final. A destination that waits for this is told in the same turn, and from then on the VM may be running
   * there. Asked again, gives the same answer. Throws MEMORY_UNREADABLE; the VM is then as it was, and may be paused again.
   */
  pause(): Standstill {
    if (this.#standstill !== undefined) return this.#standstill;
    const beganMs = performance.now();
    const zeros = new ZeroTable(this.regions, this.image.holes());
    this.#standstill = { zeros, scanMs: performance.now() - beganMs };
    this.#move('ready');
    this.#keeper?.changed(this);
    if (this.#session !== undefined) this.#serve(this.#session);
    return this.#standstill;
  }

  /**
   * The VM runs again. Throws PAGES_SERVED once a destination was told that it stands still, page served or not: with the list of its zeros alone
   * a guest can run elsewhere. Who knows that it never did releases it with force.
   */
  unpause(): void {
    if (this.#state === 'registered') return;
    if (this.#state === 'serving' || this.#state === 'completed')
      throw this.pagesServedError('it must not run here again');
    this.#move('registered');
    this.#standstill = undefined;
    this.#keeper?.changed(this);
  }

  /**
   * Gives a destination its session; with `early` also where the VM still runs. The same destination may come again: its older session ends. The
   * caller has checked token, generation and geometry. Throws VM_NOT_PAUSED, ALREADY_COMPLETED, SECOND_DESTINATION.
   */
  open(destinationId: string, early: boolean): Session {
    if (this.#state === 'completed') throw this.completedError();
    if (this.#state === 'registered' && !early) throw this.notPausedError('call SetPaused first');
    if (this.#session !== undefined && this.#session.destinationId !== destinationId) {
      throw new PagewakeError(
        ErrorReason.SECOND_DESTINATION,
        `VM ${this.vmId} ${this.#state === 'registered' ? 'has' : 'is being read by'} another destination already`,
        this.#about(),
      );
    }
    this.#endSession(
      new PagewakeError(ErrorReason.CANCELLED, 'replaced by a newer session of the same destination', this.#about()),
    );
    const session = new Session(this, destinationId);
    this.#session = session;
    if (this.#state !== 'registered') this.#serve(session);
    return session;
  }

  /** The destination's Open stream is gone. Before the pause it was told nothing, so another one may come in its place. */
  leave(session: Session): void {
    if (session !== this.#session || this.#state !== 'registered') return;
    this.#endSession(
      new PagewakeError(ErrorReason.CANCELLED, `it left before VM ${this.vmId} was paused`, this.#about()),
    );
  }

  /** The destination holds every page. Streams stay until they ask for more. Idempotent. Throws VM_NOT_PAUSED. */
  complete(): void {
    if (this.#state === 'completed') return;
    if (this.#state === 'registered') throw this.notPausedError('nothing of it was read');
    this.#move('completed');
    this.served.open = false;
    this.#keeper?.gone(this);
    this.image.close();
  }

  /** This generation is over: fenced by a newer one, or released. */
  retire(why: PagewakeError): void {
    this.served.open = false;
    this.#endSession(why);
    this.image.close();
  }

  notPausedError(consequence: string): PagewakeError {
    return new PagewakeError(ErrorReason.VM_NOT_PAUSED, `VM ${this.vmId} is not paused; ${consequence}`, this.#about());
  }

  completedError(): PagewakeError {
    return new PagewakeError(
      ErrorReason.ALREADY_COMPLETED,
      `the migration of VM ${this.vmId} is complete; its source serves it no more`,
      this.#about(),
    );
  }

  pagesServedError(consequence: string): PagewakeError {
    return new PagewakeError(
      ErrorReason.PAGES_SERVED,
      `a destination has opened VM ${this.vmId} and read ${String(this.pagesServed)} pages, so it may be running elsewhere: ${consequence}`,
      { ...this.#about(), pages_served: this.pagesServed },
    );
  }

  #about(): Record<string, string | number> {
    return { vm_id: this.vmId, generation: this.generation };
  }

  #move(to: VmState): void {
    this.#state = transition(this.#state, to);
  }

  #serve(session: Session): void {
    if (this.#state === 'ready') {
      this.#move('serving');
      // First it is kept and then told: no agent that comes after this one may let the VM run again.
      this.#keeper?.changed(this);
    }
    // Before the destination is told: its first question must not find it shut.
    this.served.open = true;
    session.paused();
  }

  #endSession(why: PagewakeError): void {
    this.#session?.end(why);
    this.#session = undefined;
  }
}

export function digestOf(token: Uint8Array): Buffer {
  return createHash('sha256').update(token).digest();
}
