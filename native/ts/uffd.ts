import { binding } from './binding.ts';
import type { HandedFd, NativeUffd, OwnedFd } from './binding.ts';
import type { NativeError } from './errors.ts';
import type { PageLedger } from './ledger.ts';
import { toOutcome } from './outcome.ts';
import type { Outcome } from './types.ts';
import { nativeOf } from './userfault-bitmap.ts';
import type { UserfaultBitmap } from './userfault-bitmap.ts';

export interface UffdOpenOptions {
  /** `syscall`: userfaultfd(2); `device`: /dev/userfaultfd, whose file mode says who may. */
  readonly via: 'syscall' | 'device';
  /** True: faults of the kernel (KVM's stage-2 faults) are not seen and fail with EFAULT; needs no privilege. */
  readonly userModeOnly: boolean;
}

export interface RegisterModes {
  readonly missing: boolean;
  readonly minor: boolean;
  readonly wp: boolean;
}

export interface PollOptions {
  /** The descriptor cannot be read any more (once; polling has ended). Without it the error is thrown from the event loop. */
  readonly onClosed?: (error: NativeError) => void;
  /**
   * For memory that may be given back (EVENT_REMOVE): the install lock of `ledger` is held exclusively around every read, and
   * where a batch has other events than faults, `onEvents` of this object runs first, still under the lock, to enter them in the ledger
   * (`ledger.remove`); it must do nothing else. Then the lock is let go and the usual `onEvents` gets the whole batch.
   */
  readonly underLock?: { readonly ledger: PageLedger; readonly onEvents: (count: number) => void };
}

const MODE = { missing: 1, wp: 2, minor: 4 } as const;

/**
 * A userfaultfd. Calls on memory return an `Outcome`; opening, the handshake and `register` throw `NativeError`. Any call on a
 * closed one throws `NativeError` with EBADF. Addresses are of the process that registered the memory.
 *
 * The kernel unregisters every range once the last copy of the descriptor is closed, and the guest then reads zeros: never the last copy
 * by accident.
 */
export class Uffd {
  readonly #native: NativeUffd;

  private constructor(native: NativeUffd) {
    this.#native = native;
  }

  /** Non-blocking, closed on exec. EPERM: see `userModeOnly` and /dev/userfaultfd. */
  static open(options: UffdOpenOptions): Uffd {
    return Uffd.adopt(binding.Uffd.open(options.via === 'device', options.userModeOnly));
  }

  /** Takes ownership of `fd`, and makes it non-blocking for everybody who shares it. Where it throws, `fd` stays the caller's. */
  static adopt(fd: OwnedFd | HandedFd): Uffd {
    return new Uffd(new binding.Uffd(fd));
  }

  /** -1 once closed. */
  get fd(): number {
    return this.#native.fd();
  }

  /** Another descriptor of the same userfaultfd. Only one of them may read. */
  duplicate(): Uffd {
    return Uffd.adopt(this.#native.duplicate());
  }

  /** Once, before anything else, by whoever opened it. EINVAL: a feature is unknown here, or it was done already. */
  handshake(features: number): { readonly features: number; readonly ioctls: bigint } {
    const [granted, ioctls] = this.#native.handshake(features);
    return { features: granted, ioctls };
  }

  /** Only memory of this process. Returns the bit mask of ioctls that the range allows (linux/userfaultfd.h, `_UFFDIO_*`). */
  register(address: number, length: number, modes: RegisterModes): number {
    const mode = (modes.missing ? MODE.missing : 0) | (modes.wp ? MODE.wp : 0) | (modes.minor ? MODE.minor : 0);
    return this.#native.register(address, length, mode);
  }

  /** Also wakes everybody who waits in the range. */
  unregister(address: number, length: number): Outcome {
    return toOutcome(this.#native.unregister(address, length));
  }

  /** Fills absent pages from `source` and, unless told otherwise, wakes who waits for them. */
  copy(
    address: number,
    source: Uint8Array,
    sourceOffset: number,
    length: number,
    wake: boolean | { readonly wake: boolean },
  ): Outcome {
    const wakes = typeof wake === 'boolean' ? wake : wake.wake;
    return toOutcome(this.#native.copy(address, source, sourceOffset, length, wakes));
  }

  /**
   * `copy` of one page that `ledger` has as requested, and requested → present, both under the ledger's shared lock: what takes five calls where a fault
   * waits takes one. `done` with 0 bytes: the page was not requested any more, and nothing was done. Any other outcome left the ledger alone.
   *
   * @param bitmap where the memory has one: the page's bit is cleared in it as soon as COPY is done. Any other outcome leaves it alone
   */
  copyRequested(
    address: number,
    source: Uint8Array,
    length: number,
    ledger: PageLedger,
    page: number,
    bitmap?: { readonly of: UserfaultBitmap; readonly page: number },
  ): Outcome {
    const native = bitmap === undefined ? null : nativeOf(bitmap.of);
    return toOutcome(
      this.#native.copyRequested(address, source, 0, length, ledger.id, page, native, bitmap?.page ?? 0),
    );
  }

  /** Fills absent pages with zeros and wakes. Not on hugetlbfs (EINVAL). */
  zeropage(address: number, length: number): Outcome {
    return toOutcome(this.#native.zeropage(address, length));
  }

  /** Maps pages that are in the cache already (a minor fault) and wakes. `absent`: there is no page in the cache. */
  continue(address: number, length: number): Outcome {
    return toOutcome(this.#native.continue(address, length));
  }

  wake(address: number, length: number): Outcome {
    return toOutcome(this.#native.wake(address, length));
  }

  /** Marks absent pages so that touching one is a SIGBUS, and wakes. Linux 6.6. */
  poison(address: number, length: number): Outcome {
    return toOutcome(this.#native.poison(address, length));
  }

  /**
   * Calls `onEvents` for every batch of at most `UFFD_EVENT_BATCH` events, which then lie in `events` (room for a batch needed;
   * overwritten by the next one). After a few batches the event loop gets its turn. One poller a descriptor: EBUSY.
   */
  poll(events: Float64Array, onEvents: (count: number) => void, options: PollOptions = {}): void {
    const onClosed =
      options.onClosed ??
      ((error: NativeError): void => {
        throw error;
      });
    const lock = options.underLock;
    this.#native.poll(events, onEvents, onClosed, lock?.ledger.id ?? 0, lock?.onEvents ?? null);
  }

  /**
   * Reads one batch at once, e.g. after an outcome `again`; 0 where there is none. With EVENT_REMOVE on: hold the ledger's lock
   * exclusively around this and the `ledger.remove` that follows from it.
   */
  drain(events: Float64Array): number {
    return this.#native.drain(events);
  }

  stopPolling(): void {
    this.#native.stopPolling();
  }

  /** Idempotent; ends the polling. */
  close(): void {
    this.#native.close();
  }
}
