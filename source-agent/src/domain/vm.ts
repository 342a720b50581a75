/** One generation of one VM: its memory, its state, its reader. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { ErrorReason, PagewakeError } from '@pagewake/agent-kit';
import type { GuestImage, Region } from './guest-image.ts';
import { Session } from './session.ts';
import { transition, type VmState } from './vm-state.ts';
import { ZeroTable } from './zero-table.ts';

export interface ScanResult {
  readonly zeros: ZeroTable;
  readonly scanMs: number;
}

export class Vm {
  readonly vmId: string;
  readonly generation: number;
  readonly registeredAtMs: number;
  readonly regions: readonly Region[];
  readonly image: GuestImage;
  /** Pages and payload bytes that went into frames of this generation. */
  pagesServed = 0;
  payloadBytes = 0;
  readonly #tokenDigest: Buffer;
  #state: VmState = 'registered';
  #scan: Promise<ScanResult> | undefined;
  #result: ScanResult | undefined;
  #session: Session | undefined;
  /** Tells a scan that is still under way from the one whose answer counts. */
  #scanNumber = 0;
  #scansRunning = 0;
  #closed = false;

  constructor(vmId: string, generation: number, token: Uint8Array, image: GuestImage, registeredAtMs: number) {
    this.vmId = vmId;
    this.generation = generation;
    this.registeredAtMs = registeredAtMs;
    this.image = image;
    this.regions = image.regions;
    this.#tokenDigest = digest(token);
  }

  get state(): VmState {
    return this.#state;
  }

  get session(): Session | undefined {
    return this.#session;
  }

  /** Set from READY on. */
  get scanned(): ScanResult | undefined {
    return this.#result;
  }

  /** Over digests, so that neither content nor length of the right token shows in the time this takes. */
  acceptsToken(token: Uint8Array): boolean {
    return timingSafeEqual(this.#tokenDigest, digest(token));
  }

  /** The VM stands still: find its zeros once. Asked again, gives the same answer. */
  pause(): Promise<ScanResult> {
    if (this.#state === 'registered') {
      this.#move('scanning');
      this.#scan = this.#runScan();
    }
    if (this.#scan === undefined) throw new Error(`VM ${this.vmId} is ${this.#state} but was never scanned`);
    return this.#scan;
  }

  /**
   * The VM runs again. Throws PAGES_SERVED once a destination has opened it, page served or not: with the list of its zeros alone a guest
   * can run elsewhere. Who knows that it never did releases it with force.
   */
  unpause(): void {
    if (this.#state === 'registered') return;
    if (this.#state === 'serving' || this.#state === 'completed')
      throw this.pagesServedError('it must not run here again');
    this.#move('registered');
    this.#scanNumber++;
    this.#scan = undefined;
    this.#result = undefined;
  }

  /**
   * Gives a destination its session. The same destination may come again: its older session ends. The caller has checked
   * token, generation and geometry. Throws VM_NOT_PAUSED, ALREADY_COMPLETED, SECOND_DESTINATION.
   */
  open(destinationId: string): Session {
    switch (this.#state) {
      case 'registered':
      case 'scanning':
        throw new PagewakeError(
          ErrorReason.VM_NOT_PAUSED,
          `VM ${this.vmId} is ${this.#state === 'scanning' ? 'still being scanned' : 'not paused'}; call SetPaused first`,
          this.#about(),
        );
      case 'completed':
        throw this.completedError();
      case 'serving':
        if (this.#session?.destinationId !== destinationId) {
          throw new PagewakeError(
            ErrorReason.SECOND_DESTINATION,
            `VM ${this.vmId} is being read by another destination already`,
            this.#about(),
          );
        }
        this.#endSession(
          new PagewakeError(
            ErrorReason.CANCELLED,
            'replaced by a newer session of the same destination',
            this.#about(),
          ),
        );
        break;
      case 'ready':
        this.#move('serving');
        break;
    }
    this.#session = new Session(this, destinationId);
    return this.#session;
  }

  /** The destination holds every page. Streams stay until they ask for more. Idempotent. */
  complete(): void {
    if (this.#state === 'completed') return;
    this.#move('completed');
    this.#closeImage();
  }

  /** This generation is over: fenced by a newer one, or released. */
  retire(why: PagewakeError): void {
    this.#endSession(why);
    this.#closeImage();
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

  async #runScan(): Promise<ScanResult> {
    const number = ++this.#scanNumber;
    const beganMs = performance.now();
    this.#scansRunning++;
    try {
      const lists = await this.image.scanZero();
      // Unpaused (and perhaps paused again) or retired meanwhile: what was found may not be so any more.
      if (this.#closed || number !== this.#scanNumber) {
        throw new PagewakeError(
          ErrorReason.VM_NOT_PAUSED,
          `VM ${this.vmId} runs again, or was replaced, since its scan began`,
          this.#about(),
        );
      }
      this.#result = { zeros: new ZeroTable(this.regions, lists), scanMs: performance.now() - beganMs };
      this.#move('ready');
      return this.#result;
    } catch (error) {
      if (number === this.#scanNumber && this.#state === 'scanning') {
        this.#move('registered');
        this.#scan = undefined;
      }
      throw error;
    } finally {
      this.#scansRunning--;
      if (this.#closed) this.#closeImage();
    }
  }

  #endSession(why: PagewakeError): void {
    this.#session?.end(why);
    this.#session = undefined;
  }

  /** Not under a scan's feet: then the last scan closes it. */
  #closeImage(): void {
    this.#closed = true;
    if (this.#scansRunning === 0) this.image.close();
  }
}

function digest(token: Uint8Array): Buffer {
  return createHash('sha256').update(token).digest();
}
