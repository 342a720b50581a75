/** All VMs that this agent may serve, at most one generation of each, and every session that was given out. */
import { ErrorReason, PagewakeError, unixMs } from '@pagewake/agent-kit';
import { checkSameGeometry } from './geometry.ts';
import type { GuestImage, Region } from './guest-image.ts';
import type { Session } from './session.ts';
import { digestOf, Vm, type Standstill, type VmKeeper, type VmRecord } from './vm.ts';

const TOKEN_BYTES = { least: 16, most: 64 };
const MAX_NAME_LENGTH = 128;
/** Ended sessions are kept that long, so that an old destination is told why and not merely "unknown". */
const MAX_SESSIONS = 4096;

export interface OpenWish {
  readonly vmId: string;
  readonly generation: number;
  readonly token: Uint8Array;
  readonly destinationId: string;
  /** Empty: the destination does not know yet. */
  readonly regions: readonly Region[];
  /** The VM may still run: the session is given all the same, to be read from once it is paused. */
  readonly waitUntilPaused: boolean;
}

export class VmRegistry {
  readonly #vms = new Map<string, Vm>();
  /** Kept after a Release, so that a generation is never given twice. */
  readonly #lastGeneration = new Map<string, number>();
  readonly #sessions = new Map<string, Session>();
  readonly #firstGeneration: () => number;
  readonly #keeper: VmKeeper | undefined;

  /**
   * `firstGeneration`: where a VM begins that this agent has not seen. Generations of VMs that are gone are not stored anywhere, so by default it
   * is the Unix time in seconds: an agent that was restarted does not hand out numbers that it handed out before.
   */
  constructor(firstGeneration: () => number = () => Math.floor(unixMs() / 1000), keeper?: VmKeeper) {
    this.#firstGeneration = firstGeneration;
    this.#keeper = keeper;
  }

  /**
   * To be asked before the VM's memory is opened, which takes its time. `unlessRegistered`: it is not to be taken from anybody. Throws
   * INVALID_ARGUMENT, MIGRATION_EXISTS, PAGES_SERVED.
   */
  checkRegister(vmId: string, token: Uint8Array, unlessRegistered = false): void {
    checkName(vmId, 'vm_id');
    if (token.length < TOKEN_BYTES.least || token.length > TOKEN_BYTES.most) {
      throw new PagewakeError(
        ErrorReason.INVALID_ARGUMENT,
        `token of ${String(token.length)} bytes; must be ${String(TOKEN_BYTES.least)} to ${String(TOKEN_BYTES.most)}`,
        { vm_id: vmId, found: token.length },
      );
    }
    const older = this.#vms.get(vmId);
    if (unlessRegistered && older !== undefined && older.state !== 'completed') {
      throw new PagewakeError(
        ErrorReason.MIGRATION_EXISTS,
        `VM ${vmId} is ${older.state} already, generation ${String(older.generation)}; release it if nobody migrates it any more`,
        { vm_id: vmId, state: older.state, generation: older.generation },
      );
    }
    if (older?.wasRead === true) {
      throw older.pagesServedError('before it is registered again: pagewake release --force');
    }
  }

  /**
   * Takes a VM in under the next generation and fences the older one. The image belongs to the registry from here on: it is closed where this
   * throws, as `checkRegister` does. Of two that open the same VM's memory at once the later one fences the earlier, or is refused.
   */
  register(vmId: string, token: Uint8Array, image: GuestImage, unlessRegistered = false): Vm {
    try {
      this.checkRegister(vmId, token, unlessRegistered);
    } catch (error) {
      image.close();
      throw error;
    }
    const last = this.#lastGeneration.get(vmId);
    const generation = last === undefined ? this.#firstGeneration() : last + 1;
    const older = this.#vms.get(vmId);
    older?.retire(
      new PagewakeError(
        ErrorReason.STALE_GENERATION,
        `VM ${vmId} was registered anew: generation ${String(older.generation)} is over, ${String(generation)} is in force`,
        { vm_id: vmId, found: older.generation, expected: generation },
      ),
    );
    return this.#take(
      {
        vmId,
        generation,
        tokenDigestHex: digestOf(token).toString('hex'),
        registeredAtMs: unixMs(),
        state: 'registered',
        destinationId: '',
      },
      image,
    );
  }

  /** Takes a VM up again that the agent before this one served. The image is closed where this throws, as `Vm` does. */
  restore(record: VmRecord, image: GuestImage): Vm {
    try {
      return this.#take(record, image);
    } catch (error) {
      image.close();
      throw error;
    }
  }

  setPaused(vmId: string, generation: number, paused: true): Standstill;
  setPaused(vmId: string, generation: number, paused: boolean): Standstill | undefined;
  setPaused(vmId: string, generation: number, paused: boolean): Standstill | undefined {
    const vm = this.#get(vmId, generation);
    if (paused) return vm.pause();
    vm.unpause();
    return undefined;
  }

  list(): readonly Vm[] {
    return [...this.#vms.values()];
  }

  /** Generation 0: whichever it is. Throws UNKNOWN_VM, STALE_GENERATION; without force PAGES_SERVED and WRONG_PHASE. */
  release(vmId: string, generation: number, force: boolean): void {
    const vm = generation === 0 ? this.#known(vmId) : this.#get(vmId, generation);
    if (vm.state === 'serving' && !force) {
      if (vm.wasRead)
        throw vm.pagesServedError('pagewake release --force releases it and loses what was not yet served');
      throw new PagewakeError(
        ErrorReason.WRONG_PHASE,
        `VM ${vmId} was opened by its destination; pagewake release --force releases it all the same`,
        { vm_id: vmId, generation: vm.generation },
      );
    }
    this.#vms.delete(vmId);
    this.#keeper?.gone(vm);
    vm.retire(new PagewakeError(ErrorReason.UNKNOWN_VM, `VM ${vmId} was released on its source`, { vm_id: vmId }));
  }

  /**
   * Gives a destination its session. Throws UNKNOWN_VM, STALE_GENERATION, BAD_TOKEN, VM_NOT_PAUSED, ALREADY_COMPLETED,
   * GEOMETRY_MISMATCH, SECOND_DESTINATION. The generation comes before the token: registering anew also changes the token, and
   * a fenced destination is to learn that it is fenced.
   */
  open(wish: OpenWish): Session {
    checkName(wish.destinationId, 'destination_id');
    const vm = this.#get(wish.vmId, wish.generation);
    if (!vm.acceptsToken(wish.token)) {
      throw new PagewakeError(ErrorReason.BAD_TOKEN, `wrong token for VM ${wish.vmId}`, { vm_id: wish.vmId });
    }
    if (wish.regions.length > 0) checkSameGeometry(vm.regions, wish.regions);
    const session = vm.open(wish.destinationId, wish.waitUntilPaused);
    this.#remember(session);
    return session;
  }

  /** The session with these bytes, ended or not: look at `ended`. Throws UNKNOWN_SESSION if there never was one. */
  session(id: Uint8Array): Session {
    const session = this.#sessions.get(keyOf(id));
    if (session === undefined) {
      throw id.length === 0
        ? new PagewakeError(ErrorReason.INVALID_ARGUMENT, 'the first message must carry the session that Open gave', {
            field: 'session',
          })
        : new PagewakeError(ErrorReason.UNKNOWN_SESSION, 'this session was not given by this agent; call Open');
    }
    return session;
  }

  /** The agent stops. */
  close(): void {
    const why = new PagewakeError(ErrorReason.SOURCE_LOST, 'the source agent is stopping');
    for (const vm of this.#vms.values()) vm.retire(why);
    this.#vms.clear();
  }

  #take(record: VmRecord, image: GuestImage): Vm {
    const vm = new Vm(record, image, this.#keeper);
    this.#lastGeneration.set(vm.vmId, vm.generation);
    this.#vms.set(vm.vmId, vm);
    return vm;
  }

  #remember(session: Session): void {
    this.#sessions.set(keyOf(session.id), session);
    if (this.#sessions.size <= MAX_SESSIONS) return;
    for (const [key, { ended }] of this.#sessions) {
      if (ended === undefined) continue;
      this.#sessions.delete(key);
      return;
    }
  }

  #known(vmId: string): Vm {
    const vm = this.#vms.get(vmId);
    if (vm === undefined) {
      throw new PagewakeError(ErrorReason.UNKNOWN_VM, `no VM "${vmId}" is registered here`, { vm_id: vmId });
    }
    return vm;
  }

  #get(vmId: string, generation: number): Vm {
    const vm = this.#known(vmId);
    if (vm.generation !== generation) {
      throw new PagewakeError(
        ErrorReason.STALE_GENERATION,
        `generation ${String(generation)} of VM ${vmId} is not in force; ${String(vm.generation)} is`,
        { vm_id: vmId, found: generation, expected: vm.generation },
      );
    }
    return vm;
  }
}

function keyOf(id: Uint8Array): string {
  return Buffer.from(id.buffer, id.byteOffset, id.byteLength).toString('latin1');
}

function checkName(name: string, field: string): void {
  if (name === '' || name.length > MAX_NAME_LENGTH || /\p{Cc}/u.test(name)) {
    throw new PagewakeError(
      ErrorReason.INVALID_ARGUMENT,
      `${field} ${JSON.stringify(name.slice(0, MAX_NAME_LENGTH))}; must be 1 to ${String(MAX_NAME_LENGTH)} printable characters`,
      { field },
    );
  }
}
