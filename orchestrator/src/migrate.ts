/** One migration from the first call to the last page: the order of things, and nothing slow inside the blackout. */
import { randomBytes } from 'node:crypto';
import { trace } from '@opentelemetry/api';
import { ErrorReason, messageOf, PagewakeError, parseAddress, UserError } from '@pagewake/agent-kit';
import { MigrationPhase as AgentPhase, type Migration as MigrationView } from '@pagewake/proto';
import { refuseIfAborted, unlessAborted } from './abort.ts';
import { connectDestination, connectSource, type DestinationAgent, type SourceAgent } from './agents.ts';
import { downtimeOf, type Downtime } from './downtime.ts';
import { GuestNeverRan, type EarlyHandOver, type SourceMemory, type VmmInstant } from './drivers/driver.ts';
import { AlreadyMigrating, refuseIfMigrating, registerVm } from './registered.ts';
import { unlessItFails } from './control-lost.ts';
import { cancelledByCaller, MigrationError } from './errors.ts';
import { EventQueue, type MigrationEvent, type Step } from './events.ts';
import type { MigrateOptions, MigrationResult } from './options.ts';
import { PhaseClock, type MigrationPhase } from './phase.ts';
import { startMigration } from './start.ts';
import { MigrationTrace } from './tracing.ts';
import { lastView, leaveAsItIs, unwind, type Situation } from './unwind.ts';
import { Views } from './views.ts';
import { errorOf, watchMigration } from './watch.ts';

/** A migration under way. Iterate it for its events, wait for `result`, or both; a failure reaches each of them. */
export interface Migration extends AsyncIterable<MigrationEvent> {
  /** Rejects with a MigrationError, whose `outcome` says where the guest is. */
  readonly result: Promise<MigrationResult>;
  readonly phase: MigrationPhase;
}

/** Starts at once. Throws UserError where an address or a TLS option is no good, before anything was done. */
export function migrate(options: MigrateOptions): Migration {
  const run = new MigrationRun(options);
  const result = run.run();
  // Who only iterates meets the failure there; it must not be an unhandled rejection as well.
  result.catch(() => undefined);
  return {
    result,
    get phase() {
      return run.phase;
    },
    [Symbol.asyncIterator]: () => run.events[Symbol.asyncIterator](),
  };
}

const TOKEN_BYTES = 32;
/** The first calls of a process are compiled as they run; what these take the guest does not notice. */
const WARM_UP_CALLS = 8;
/** Finding zeros reads all memory that is not a hole: seconds for a large guest on a busy host. */
const SCAN_TIMEOUT_MS = 300_000;
const DEFAULT_PROGRESS_MS = 1_000;
const LEAST_PROGRESS_MS = 50;
const DEFAULT_LOSS_MS = 60_000;
/** The VMM tries again every moment, and a large guest's registration takes a second at most. */
const DEFAULT_HAND_OVER_MS = 30_000;

class MigrationRun {
  readonly events = new EventQueue();
  readonly #o: MigrateOptions;
  readonly #signal: AbortSignal;
  readonly #clock = new PhaseClock();
  readonly #beganMs = performance.now();
  readonly #trace: MigrationTrace;
  readonly #source: SourceAgent;
  readonly #destination: DestinationAgent;
  readonly #steps: { step: Step; ms: number }[] = [];
  readonly #warnings: string[] = [];
  readonly #stopWatching = new AbortController();
  readonly #views = new Views();
  #checked = false;
  #begun = false;
  #vmId = '';
  #generation: number | undefined;
  #migrationId: string | undefined;
  #vmmSocket = '';
  #watch: Promise<MigrationView> | undefined;
  #interrupted = false;
  #sourcePaused = false;
  #handedOver = false;
  #found = { dataPages: 0, zeroPages: 0 };
  #downtime: Downtime | undefined;

  constructor(options: MigrateOptions) {
    const intervalMs = options.progressIntervalMs;
    if (intervalMs !== undefined && !(intervalMs >= LEAST_PROGRESS_MS)) {
      throw new UserError(`progressIntervalMs is ${String(intervalMs)}; at least ${String(LEAST_PROGRESS_MS)}`, 2);
    }
    if (options.sourceFromDestination !== undefined)
      parseAddress(options.sourceFromDestination, 'sourceFromDestination');
    this.#o = options;
    this.#signal = options.signal ?? new AbortController().signal;
    this.#source = connectSource(options.source);
    this.#destination = connectDestination(options.destination);
    this.#trace = new MigrationTrace(options.tracer ?? trace.getTracer('pagewake'));
  }

  get phase(): MigrationPhase {
    return this.#clock.phase;
  }

  async run(): Promise<MigrationResult> {
    try {
      await this.#prepare();
      await this.#blackout();
      const migration = await this.#fill();
      const result = this.#result(migration);
      this.#trace.end();
      this.events.end();
      return result;
    } catch (error) {
      const failure = await this.#failed(error);
      this.#trace.end(failure);
      this.events.fail(failure);
      throw failure;
    } finally {
      this.#stopWatching.abort();
      this.#source.close();
      this.#destination.close();
      await this.#o.driver.close().catch((error: unknown) => this.#warn(`cleaning up: ${String(error)}`));
    }
  }

  // ── While the guest runs on the source ──────────────────────────────────────────────────────────────────────────

  async #prepare(): Promise<void> {
    const { driver } = this.#o;
    const described = await this.#step('check', async () => {
      // A guest that stands still is perhaps being moved by somebody else just now, which says more.
      await driver.check(this.#signal).catch((error: unknown) => this.#sayWhoMigrates(error));
      return driver.describeMemory(this.#signal);
    });
    this.#vmId = this.#agreedVmId(described);
    const handOver = described.earlyHandOver;
    if (handOver !== undefined && this.#o.mode === 'eager') {
      throw new UserError(
        `${this.#o.driver.describe()}: this VMM runs its guest at once, so its memory cannot come first; leave out eager`,
        2,
      );
    }
    this.#checked = true;
    const token = randomBytes(TOKEN_BYTES);
    const vmId = this.#vmId;
    const registration = { vmId, memory: described.memory, token };
    const generation = await this.#step('register', () => registerVm(this.#source, registration, this.#signal));
    this.#generation = generation;
    const { wire } = this.#trace;
    const started = await this.#step('start', () =>
      startMigration(this.#destination, this.#o, { vmId, generation, token, handOver, trace: wire }, (id) => {
        this.#migrationId = id;
      }),
    );
    this.#begun = true;
    this.#vmmSocket = started.vmmSocket;
    this.#trace.annotate({ 'pagewake.vm.id': vmId, 'pagewake.migration.id': started.migrationId });
    this.events.push({ type: 'started', migrationId: started.migrationId, vmId, generation });
    await this.#openWatch(started.migrationId);
    if (handOver !== undefined) await this.#step('hand-over', () => this.#untilHandedOver(handOver));
    await this.#arm();
  }

  #untilHandedOver(handOver: EarlyHandOver): Promise<void> {
    const timeoutMs = this.#o.handOverMs ?? DEFAULT_HAND_OVER_MS;
    return this.#views.untilHandedOver(handOver, { timeoutMs, signal: this.#signal, fails: this.#migrationFails() });
  }

  /** What costs time the first time: VMMs are made ready, both links have just been used, and what makes and reads a call has run some times. */
  async #arm(): Promise<void> {
    const { driver } = this.#o;
    if (driver.arm === undefined) return;
    const migrationId = this.#migrationId ?? '';
    const limits = { signal: this.#signal };
    await this.#step('arm', async () => {
      await driver.arm?.(this.#signal);
      for (let call = 0; call < WARM_UP_CALLS; call++) {
        await Promise.all([
          this.#source.call((c, o) => c.list({}, o), limits),
          this.#destination.call((c, o) => c.get({ migrationId }, o), limits),
        ]);
      }
    });
  }

  /** Rejects, with `error` unless the source agent knows better. */
  async #sayWhoMigrates(error: unknown): Promise<never> {
    if (this.#o.driver.hasSourceGuest && !this.#signal.aborted && (await this.#o.driver.sourceState?.()) === 'paused') {
      try {
        const vmId = this.#agreedVmId(await this.#o.driver.describeMemory(this.#signal));
        await refuseIfMigrating(this.#source, vmId, this.#signal);
      } catch (better) {
        if (better instanceof AlreadyMigrating) throw better;
      }
    }
    throw error;
  }

  #agreedVmId({ vmId: found }: SourceMemory): string {
    const wanted = this.#o.vmId;
    if (wanted !== undefined && found !== undefined && wanted !== found) {
      throw new PagewakeError(
        ErrorReason.UNKNOWN_VM,
        `${this.#o.driver.describe()}: the source runs VM ${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`,
        { expected: wanted, found },
      );
    }
    const vmId = wanted ?? found;
    if (vmId === undefined) throw new UserError('the VM needs a name: this source has none of its own', 2);
    return vmId;
  }

  /** Resolves with the first view, so that the link is known to be up before the guest is paused. */
  async #openWatch(migrationId: string): Promise<void> {
    const first = new Promise<void>((resolve, reject) => {
      this.#watch = watchMigration(this.#destination, migrationId, {
        intervalMs: this.#o.progressIntervalMs ?? DEFAULT_PROGRESS_MS,
        lossBudgetMs: this.#o.destinationLossMs ?? DEFAULT_LOSS_MS,
        signal: this.#stopWatching.signal,
        onView: (view) => {
          resolve();
          this.#onView(view);
        },
        onLost: (error) => this.#warn(`${error.message}; trying again`),
      });
      this.#watch.catch(reject);
    });
    await unlessAborted(this.#signal, first);
  }

  #onView(view: MigrationView): void {
    this.#views.note(view);
    const interrupted = view.phase === AgentPhase.INTERRUPTED;
    if (interrupted && !this.#interrupted) this.events.push({ type: 'interrupted', error: errorOf(view) });
    if (!interrupted && this.#interrupted && view.phase !== AgentPhase.FAILED) this.events.push({ type: 'recovered' });
    this.#interrupted = interrupted;
    this.events.push({ type: 'progress', migration: view });
  }

  // ── While it runs nowhere ───────────────────────────────────────────────────────────────────────────────────────

  async #blackout(): Promise<void> {
    const { driver } = this.#o;
    const [vmId, generation] = [this.#vmId, this.#generation ?? 0];
    refuseIfAborted(this.#signal);
    this.#sourcePaused = true;
    const { paused, askedMs, stoppedMs } = await this.#pause();
    // Both need no more than a guest that stands still. Either may fail; the other must have ended before anything is taken back.
    const [scan, save] = await Promise.allSettled([
      this.#step('scan', () =>
        this.#source.call((c, o) => c.setPaused({ vmId, generation, paused: true }, o), {
          timeoutMs: SCAN_TIMEOUT_MS,
          signal: this.#signal,
        }),
      ),
      driver.saveState === undefined ? undefined : this.#step('save', async () => driver.saveState?.()),
    ]);
    if (scan.status === 'rejected') throw scan.reason;
    if (save.status === 'rejected') throw save.reason;
    this.#found = { dataPages: Number(scan.value.dataPages), zeroPages: Number(scan.value.zeroPages) };
    refuseIfAborted(this.#signal);
    this.#handedOver = true;
    const resumed = await this.#step('start-destination', () =>
      this.#unlessItFails((signal) => driver.startDestination(save.value, this.#vmmSocket, signal)),
    );
    const nowMs = performance.now();
    this.#downtime = downtimeOf(driver, paused, resumed, { oursMs: nowMs - stoppedMs, atMostMs: nowMs - askedMs });
    this.#enter('filling');
  }

  /** The phase changes when the guest stops, which may be some time after it is asked for. */
  async #pause(): Promise<{ readonly paused: VmmInstant; readonly askedMs: number; readonly stoppedMs: number }> {
    const askedMs = performance.now();
    let stoppedMs = askedMs;
    const onStop = (): void => {
      stoppedMs = performance.now();
      if (this.phase === 'preparing') this.#enter('blackout');
    };
    const paused = await this.#step('pause', () =>
      this.#unlessItFails((signal) => this.#o.driver.pauseSource(onStop, signal)),
    );
    if (this.phase === 'preparing') onStop();
    if (this.#o.driver.arm !== undefined) this.#note('settle', performance.now() - stoppedMs);
    return { paused, askedMs, stoppedMs };
  }

  #unlessItFails<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return unlessItFails(work, { signal: this.#signal, last: this.#watch, fails: this.#migrationFails() });
  }

  /** Never resolves. A VMM that waits for `ready` may not notice that it will never come. */
  async #migrationFails(): Promise<never> {
    const view = await this.#watch;
    if (view !== undefined && view.phase !== AgentPhase.COMPLETED) throw errorOf(view);
    return new Promise(() => undefined);
  }

  // ── While it runs on the destination ────────────────────────────────────────────────────────────────────────────

  async #fill(): Promise<MigrationView> {
    if (this.#watch === undefined) throw new Error('filling without a watch');
    const view = await unlessAborted(this.#signal, this.#watch);
    if (view.phase !== AgentPhase.COMPLETED) throw errorOf(view);
    if (view.error !== undefined) this.#warn(`the source agent was not told that all is done: ${view.error.message}`);
    const [vmId, generation] = [this.#vmId, this.#generation ?? 0];
    // Forced: where the destination could not tell the source, that one still holds it for reading.
    await this.#step('release', () =>
      this.#source.call((c, o) => c.release({ vmId, generation, force: true }, o)),
    ).catch((error: unknown) => this.#warn(`the source agent keeps VM ${vmId} until it is released: ${String(error)}`));
    const { driver } = this.#o;
    if (driver.endSource !== undefined) {
      await this.#step('end-source', async () => driver.endSource?.()).catch((error: unknown) =>
        this.#warn(`the source VMM was not ended: ${messageOf(error)}`),
      );
    }
    this.#enter('completed');
    return view;
  }

  // ── Ends ────────────────────────────────────────────────────────────────────────────────────────────────────────

  #result(migration: MigrationView): MigrationResult {
    if (this.#downtime === undefined) throw new Error('completed without a blackout');
    return {
      migrationId: migration.migrationId,
      vmId: this.#vmId,
      generation: this.#generation ?? 0,
      traceId: this.#trace.traceId,
      ...this.#downtime,
      totalMs: performance.now() - this.#beganMs,
      phases: this.#clock.times,
      steps: this.#steps,
      ...this.#found,
      migration,
      warnings: this.#warnings,
    };
  }

  async #failed(error: unknown): Promise<MigrationError> {
    const situation: Situation = {
      driver: this.#o.driver,
      source: this.#source,
      destination: this.#destination,
      vmId: this.#vmId,
      untouched: !this.#checked || error instanceof AlreadyMigrating,
      begun: this.#begun,
      generation: this.#generation,
      migrationId: this.#migrationId,
      sourcePaused: this.#sourcePaused,
      handedOver: this.#handedOver,
      neverRan: error instanceof GuestNeverRan,
      aborted: this.#signal.aborted,
      warn: (message) => this.#warn(message),
    };
    const cause = await this.#betterCause(error);
    const after = this.phase === 'filling' ? await leaveAsItIs(situation) : await unwind(situation);
    this.#enter(after.outcome);
    // Told to stop is why we asked; that nobody answered is why we cannot say more.
    const why = this.#signal.aborted && after.cause !== undefined ? after.cause : cause;
    return new MigrationError(after.outcome, why, after.advice);
  }

  /** A VMM whose agent gave up only sees its socket close; the agent knows why. */
  async #betterCause(error: unknown): Promise<unknown> {
    if (this.#signal.aborted) return cancelledByCaller();
    if (!this.#handedOver || error instanceof PagewakeError) return error;
    const view = await lastView({ destination: this.#destination, migrationId: this.#migrationId });
    if (view?.phase !== AgentPhase.FAILED || view.error === undefined) return error;
    const why = errorOf(view);
    // That the VMM is gone is all the agent can say of its end; what the driver saw says more.
    return why.reason === ErrorReason.VMM_EXITED
      ? new PagewakeError(why.reason, error instanceof Error ? error.message : String(error), {}, { cause: error })
      : why;
  }

  // ── Small things ────────────────────────────────────────────────────────────────────────────────────────────────

  #enter(phase: MigrationPhase): void {
    const { phase: previous, ms } = this.#clock.advance(phase);
    this.events.push({ type: 'phase', phase, previous, ms });
  }

  async #step<T>(step: Step, work: () => Promise<T>): Promise<T> {
    const beganMs = performance.now();
    const value = await this.#trace.child(step, work);
    this.#note(step, performance.now() - beganMs);
    return value;
  }

  #note(step: Step, ms: number): void {
    this.#steps.push({ step, ms });
    this.events.push({ type: 'step', step, ms });
  }

  #warn(message: string): void {
    this.#warnings.push(message);
    this.events.push({ type: 'warning', message });
  }
}
