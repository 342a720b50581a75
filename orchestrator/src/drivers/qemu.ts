/**
 * An unmodified QEMU on both sides, over QMP. QEMU moves the devices' state itself and leaves out RAM that is shared (`x-ignore-shared`); the
 * agents move that. The destination's QEMU runs under the shim, which hands its RAM over while the guest still runs on the source.
 */
import { messageOf, UserError } from '@pagewake/agent-kit';
import { isLocal, parseQmpAddress } from '../qmp/address.ts';
import type { QmpClient } from '../qmp/client.ts';
import { QmpRefused } from '../qmp/errors.ts';
import { ControlLost, GuestNeverRan, type SourceMemory, type VmmDriver, type VmmInstant } from './driver.ts';
import {
  DESTINATION_CAPABILITIES,
  putBack,
  setCapabilities,
  SOURCE_CAPABILITIES,
  type Wanted,
} from './qemu/capabilities.ts';
import { listenForState } from './qemu/incoming.ts';
import { inspect, statusOf, type RamBackend } from './qemu/inspect.ts';
import { judge } from './qemu/judge.ts';
import { QmpLink } from './qemu/links.ts';
import { memoryOf, regionNamesOf } from './qemu/memory.ts';
import { errorOfMigration, quit, runAgain } from './qemu/run-again.ts';
import { Switchover, type Seen } from './qemu/switchover.ts';

export interface QemuOptions {
  /** QMP of the QEMU that runs the guest: `unix:PATH` or `tcp:HOST:PORT`. */
  readonly sourceQmp: string;
  /** QMP of the one that is to run it: started with the same machine, `-incoming defer`, and the shim. */
  readonly destinationQmp: string;
  /**
   * Where the destination's QEMU listens for the devices' state, as the source's reaches it: `tcp:HOST:PORT` (port 0: any that is free), or
   * `unix:PATH` where both are on one host.
   */
  readonly migrateUri: string;
  /** File name of the agent's socket that the destination's QEMU was started with (PAGEWAKE_SOCKET). Default: the VM's name, and `.sock`. */
  readonly vmmSocketName?: string | undefined;
  /** Ends the source's QEMU once the destination has every page. Default: it is left paused. */
  readonly quitSource?: boolean | undefined;
}

/** Only QEMU's own standard error has it: the shim ends a QEMU that would fill or share the memory that is to come. */
const DESTINATION_ENDED =
  'Where it has ended, its last line on standard error says why, a line of the shim begins with pagewake-shim: (libvirt: /var/log/libvirt/qemu/NAME.log)';
/** Only for what an error says. */
const LOOK_TIMEOUT_MS = 2_000;
/** RAM that is not shared (a graphics card's) goes over first, while the guest runs. */
const STOP_TIMEOUT_MS = 60_000;
/** After the source has failed: for the destination to notice. */
const NOTICE_TIMEOUT_MS = 3_000;
const TIDY_TIMEOUT_MS = 5_000;

export class QemuDriver implements VmmDriver {
  readonly sharedClock: boolean;
  readonly hasSourceGuest = true;
  readonly endSource?: () => Promise<void>;
  readonly #o: QemuOptions;
  readonly #source: QmpLink;
  readonly #destination: QmpLink;
  #backends: { readonly from: readonly RamBackend[]; readonly to: readonly RamBackend[] } = { from: [], to: [] };
  #name: string | undefined;
  #uri = '';
  #switchover: Switchover | undefined;
  #onStop = (): void => undefined;
  readonly #before: { readonly link: QmpLink; readonly capabilities: Wanted }[] = [];
  #tidied: Promise<void> | undefined;

  /** Throws UserError where an address is none. */
  constructor(options: QemuOptions) {
    this.#o = options;
    this.#source = new QmpLink(parseQmpAddress(options.sourceQmp, 'sourceQmp'), 'source QEMU');
    this.#destination = new QmpLink(
      parseQmpAddress(options.destinationQmp, 'destinationQmp'),
      'destination QEMU',
      DESTINATION_ENDED,
    );
    if (!/^(tcp:.+:\d+|unix:.+)$/.test(options.migrateUri)) {
      throw new UserError(`migrateUri: "${options.migrateUri}" is not tcp:HOST:PORT or unix:PATH`, 2);
    }
    this.sharedClock = isLocal(this.#source.address) && isLocal(this.#destination.address);
    if (options.quitSource === true) this.endSource = () => this.#quit();
  }

  describe(): string {
    return `QEMU at ${this.#source.address.text} to ${this.#destination.address.text}`;
  }

  async check(signal: AbortSignal): Promise<void> {
    const [source, destination] = await Promise.all([this.#source.client(signal), this.#destination.client(signal)]);
    const [from, to] = await Promise.all([inspect(source, { signal }), inspect(destination, { signal })]);
    judge(
      { who: source.who, view: from, local: isLocal(source.address) },
      { who: destination.who, view: to, local: isLocal(destination.address) },
    );
    this.#backends = { from: from.backends, to: to.backends };
    this.#name = from.name;
  }

  async sourceState(): Promise<string | undefined> {
    try {
      return await statusOf(await this.#source.client(undefined, LOOK_TIMEOUT_MS), { timeoutMs: LOOK_TIMEOUT_MS });
    } catch {
      return undefined;
    }
  }

  async describeMemory(signal: AbortSignal): Promise<SourceMemory> {
    if (this.#backends.from.length === 0) {
      const { name, backends } = await inspect(await this.#source.client(signal), { signal });
      this.#name = name;
      this.#backends = { from: backends, to: [] };
    }
    return {
      vmId: this.#name,
      memory: memoryOf(this.#backends.from),
      earlyHandOver: {
        vmmSocketName: this.#o.vmmSocketName,
        regionNames: regionNamesOf(this.#backends.to),
        question: (vmmSocket) =>
          `is the destination's QEMU started under the shim with PAGEWAKE_SOCKET=${vmmSocket} and PAGEWAKE_RAM=${regionNamesOf(this.#backends.to).join(':')}? What it printed on standard error says how far it came`,
      },
    };
  }

  /** Capabilities, and the destination listens: from here on it is ready for the source's first byte. */
  async arm(signal: AbortSignal): Promise<void> {
    const [source, destination] = [await this.#source.same(), await this.#destination.same()];
    await this.#set(this.#source, SOURCE_CAPABILITIES, signal);
    await this.#set(this.#destination, DESTINATION_CAPABILITIES, signal);
    this.#uri = await listenForState(destination, this.#o.migrateUri, { signal });
    this.#switchover = new Switchover(source, destination, () => this.#onStop());
  }

  async pauseSource(onStop: () => void, signal: AbortSignal): Promise<VmmInstant> {
    const [source, switchover] = [await this.#source.same(), this.#armed()];
    this.#onStop = onStop;
    await source.execute('migrate', { uri: this.#uri }, undefined, { signal });
    const wait = { signal, timeoutMs: STOP_TIMEOUT_MS, what: `the end of the source guest's run (${source.who})` };
    const status = await switchover.until(() => {
      const seen = switchover.source;
      if (seen.ended !== undefined) throw seen.ended;
      switchover.refuseIfDestinationGaveUp(this.#destination.who, 'not-sent');
      return seen.status === 'pre-switchover' || isOver(seen.status) ? seen.status : undefined;
    }, wait);
    if (status !== 'pre-switchover') throw await errorOfMigration(source);
    return { atMs: switchover.source.stoppedAtMs };
  }

  async startDestination(_state: undefined, _vmmSocket: string, signal: AbortSignal): Promise<VmmInstant> {
    const [source, destination, switchover] = [
      await this.#source.same(),
      await this.#destination.same(),
      this.#armed(),
    ];
    switchover.refuseIfDestinationGaveUp(destination.who, 'not-sent');
    const unix = destination.address.kind === 'unix';
    let refused: GuestNeverRan | undefined;
    // Not waited for: its answer says that the source goes on, and what counts is what the destination does.
    source.execute('migrate-continue', { state: 'pre-switchover' }).catch((error: unknown) => {
      if (error instanceof QmpRefused) refused = new GuestNeverRan(error.message, 1, { cause: error });
      switchover.look();
    });
    let told = false;
    const runs = (): number | undefined => {
      if (refused !== undefined) throw refused;
      const { resumedAtMs, status } = switchover.destination;
      if (resumedAtMs !== undefined) return resumedAtMs;
      switchover.refuseIfDestinationGaveUp(destination.who, 'sent', unix);
      if (status !== 'completed' || told) return undefined;
      told = true;
      // It was started with -S, as libvirt does, and waits to be told.
      destination.execute('cont').catch(() => undefined);
      return undefined;
    };
    const first = await switchover.until(
      () => runs() ?? (switchover.source.status === 'failed' ? 'failed' : undefined),
      {
        signal,
      },
    );
    const atMs = first === 'failed' ? await this.#afterSourceFailed(source, switchover, runs) : first;
    // A source that failed runs its guest again by itself. Never two of them.
    if (switchover.source.resumedAtMs !== undefined) await source.execute('stop');
    this.#tidied = this.#tidy(switchover);
    // `close` reports it. Until then, minutes perhaps, nobody waits for it.
    this.#tidied.catch(() => undefined);
    return { atMs };
  }

  /**
   * The source has not sent all, so the destination gives up and says so; unless the failure came after the last byte. Where it says neither in time it
   * may still be loading: then nobody knows.
   */
  async #afterSourceFailed(source: QmpClient, switchover: Switchover, runs: () => number | undefined): Promise<number> {
    try {
      return await switchover.until(runs, { timeoutMs: NOTICE_TIMEOUT_MS });
    } catch (error) {
      const { message } = await errorOfMigration(source);
      if (error instanceof GuestNeverRan) throw new GuestNeverRan(message, 1, { cause: error });
      if (error instanceof ControlLost) throw new ControlLost(message, 1, { cause: error });
      throw new UserError(
        `${message}; and whether the destination runs the guest is not known: ${messageOf(error)}`,
        1,
        {
          cause: error,
        },
      );
    }
  }

  async resumeSource(): Promise<void> {
    await runAgain(await this.#source.client());
  }

  async close(): Promise<void> {
    try {
      await (this.#tidied ??= this.#tidy(undefined));
    } finally {
      // Also what was opened since, for a look at the source.
      await this.#hangUp();
    }
  }

  /** Capabilities as they were, and the QMP sockets free for others. `after`: once this switchover is through. */
  async #tidy(after: Switchover | undefined): Promise<void> {
    const through = ({ status, ended }: Seen): boolean => ended !== undefined || isOver(status);
    try {
      await after?.until(() => (through(after.source) && through(after.destination)) || undefined, {
        timeoutMs: TIDY_TIMEOUT_MS,
        what: 'the end of the migration as both QEMUs see it',
      });
      for (const { link, capabilities } of this.#before.splice(0)) await putBack(link, capabilities);
    } finally {
      this.#switchover?.stop();
      await this.#hangUp();
    }
  }

  async #hangUp(): Promise<void> {
    await Promise.all([this.#source.close(), this.#destination.close()]);
  }

  #armed(): Switchover {
    if (this.#switchover === undefined) throw new Error('the switchover before arm');
    return this.#switchover;
  }

  async #set(link: QmpLink, wanted: Wanted, signal: AbortSignal): Promise<void> {
    const capabilities = await setCapabilities(await link.same(), wanted, { signal });
    this.#before.push({ link, capabilities });
  }

  async #quit(): Promise<void> {
    await this.#tidied?.catch(() => undefined);
    await quit(await this.#source.client());
  }
}

const isOver = (status: string | undefined): boolean =>
  status === 'completed' || status === 'failed' || status === 'cancelled';
