/**
 * What to do with the guest when a migration fails. One rule: the source's guest runs again only if the destination's certainly never ran
 * and never will. Nothing here is cut short by the caller's signal.
 */
import { ErrorReason, messageOf, PagewakeError } from '@pagewake/agent-kit';
import { MigrationMode, MigrationPhase, type Migration } from '@pagewake/proto';
import type { DestinationAgent, SourceAgent } from './agents.ts';
import type { VmmDriver } from './drivers/driver.ts';
import type { FailedPhase } from './phase.ts';
import { isFinalView } from './watch.ts';

export interface Situation {
  readonly driver: VmmDriver;
  readonly source: SourceAgent;
  readonly destination: DestinationAgent;
  readonly vmId: string;
  /** Nobody was told anything but questions. */
  readonly untouched: boolean;
  /** The destination has said that it has the migration. Until then no VMM has been told anything. */
  readonly begun: boolean;
  /** Undefined: not registered. */
  readonly generation: number | undefined;
  /** Undefined: not started. */
  readonly migrationId: string | undefined;
  /** Asked to pause; it may have. */
  readonly sourcePaused: boolean;
  /** The destination's VMM was told to start the guest; it may have. */
  readonly handedOver: boolean;
  /** The driver is sure that it did not. */
  readonly neverRan: boolean;
  /** We were told to stop. */
  readonly aborted: boolean;
  warn(message: string): void;
}

export interface Aftermath {
  readonly outcome: FailedPhase;
  readonly advice: string;
  /** Why it is not known where the guest is, where that is not why the migration ended. */
  readonly cause?: unknown;
}

/** The guest is waiting: a dead agent must not keep it. */
const UNWIND_TIMEOUT_MS = 3_000;
const LIMITS = { timeoutMs: UNWIND_TIMEOUT_MS };

type Where = Pick<Situation, 'destination' | 'migrationId'>;

/** The destination does not say. */
class Silence {
  readonly error: unknown;

  constructor(error: unknown) {
    this.error = error;
  }
}

/** The destination's last word on the migration. */
async function lastWord(s: Where): Promise<Migration | 'forgotten' | Silence> {
  const { migrationId } = s;
  if (migrationId === undefined) return new Silence(undefined);
  try {
    const { migration } = await s.destination.call((c, o) => c.get({ migrationId }, o), LIMITS);
    return migration ?? new Silence(undefined);
  } catch (error) {
    return hasReason(error, ErrorReason.UNKNOWN_MIGRATION) ? 'forgotten' : new Silence(error);
  }
}

/** Undefined: the destination does not say. */
export async function lastView(s: Where): Promise<Migration | undefined> {
  const word = await lastWord(s);
  return word === 'forgotten' || word instanceof Silence ? undefined : word;
}

function hasReason(error: unknown, reason: ErrorReason): boolean {
  return error instanceof PagewakeError && error.reason === reason;
}

export async function unwind(s: Situation): Promise<Aftermath> {
  if (s.untouched) return asItWas(s.driver);
  if (s.handedOver && !(await isHarmless(s))) return leaveAsItIs(s);
  return backToSource(s);
}

async function asItWas(driver: VmmDriver): Promise<Aftermath> {
  const outcome = 'failed-untouched';
  if (!driver.hasSourceGuest) return { outcome, advice: 'nothing was touched; the snapshot is as it was' };
  const state = await driver.sourceState?.();
  if (state === 'running') return { outcome, advice: 'nothing was touched; the guest runs on the source' };
  const found = state === undefined ? 'how the guest is on the source is not known' : `its guest is ${state} there`;
  // Paused is what a source is left as by a migration that went well.
  const careful = state === 'paused' ? '; if it has moved, do not resume it there: it would run twice' : '';
  return { outcome, advice: `nothing was touched on the source; ${found}${careful}` };
}

/** True: the destination's guest never ran, and cannot run any more. */
async function isHarmless(s: Situation): Promise<boolean> {
  // Without force the agent cancels only while no VMM has handed over its memory, and none may start before it has.
  if (await cancel(s, false)) return true;
  const view = await lastView(s);
  if (view !== undefined && !isFinalView(view)) {
    // An eager guest is told to run when every page is there; from then on the agent refuses to cancel, forced or not.
    const mayForce = s.neverRan || view.mode === MigrationMode.EAGER;
    return (mayForce && (await cancel(s, true))) || s.neverRan;
  }
  return s.neverRan || (view !== undefined && endedBeforeReady(view));
}

/**
 * The agent gave up before it could say `ready`, without which no guest runs. Exported for its test.
 */
export function endedBeforeReady({ phase, mode, progress, faults }: Migration): boolean {
  if (phase !== MigrationPhase.FAILED && phase !== MigrationPhase.CANCELLED) return false;
  const touched = (faults?.total ?? 0n) + (progress?.pagesByFault ?? 0n) + (progress?.pagesByPrefetch ?? 0n);
  // The filling clock starts before the lanes are given the memory, and that before `ready`.
  if ((progress?.fillingMs ?? 0) === 0 && touched === 0n) return true;
  return mode === MigrationMode.EAGER && progress !== undefined && progress.pagesPresent < progress.pagesTotal;
}

async function cancel(s: Situation, force: boolean): Promise<boolean> {
  const { migrationId } = s;
  if (migrationId === undefined) return true;
  try {
    await s.destination.call((c, o) => c.cancel({ migrationId, force }, o), LIMITS);
    return true;
  } catch {
    return false;
  }
}

async function backToSource(s: Situation): Promise<Aftermath> {
  if (s.sourcePaused) {
    await stopServing(s);
    const stuck = await resume(s.driver);
    if (stuck !== undefined && s.driver.sourceState !== undefined && (await s.driver.sourceState()) === undefined) {
      return {
        outcome: 'failed-unknown',
        advice: `the guest never ran on the destination, and the source VMM does not answer: if its process is gone, so is the guest; else see whether it is paused there, and resume it: ${stuck}`,
      };
    }
    if (stuck !== undefined) {
      return {
        outcome: 'failed-source-paused',
        advice: `the guest is still paused on the source, with nothing lost; resume it there by hand: ${stuck}`,
      };
    }
  }
  const { generation, migrationId, vmId } = s;
  // Forced where a VMM has handed its memory over: its guest never ran, so nothing is lost but that VMM.
  if (migrationId !== undefined && !(await cancel(s, false))) {
    const view = await lastView(s);
    if (view !== undefined && !isFinalView(view) && !(await cancel(s, true)))
      s.warn(`migration ${migrationId} could not be cancelled on the destination`);
  }
  if (generation !== undefined) {
    await s.source
      .call((c, o) => c.release({ vmId, generation, force: true }, o), LIMITS)
      .catch((error: unknown) => {
        if (!hasReason(error, ErrorReason.UNKNOWN_VM))
          s.warn(`the source agent still knows VM ${vmId}: ${messageOf(error)}`);
      });
  }
  // An agent that is not there, or refuses what it is asked, has not come near the guest.
  if (!s.begun) return asItWas(s.driver);
  return {
    outcome: 'failed-source-runs',
    advice: s.driver.hasSourceGuest ? 'the guest runs on on the source' : 'the snapshot is as it was',
  };
}

/** Before the guest writes to its memory again, nobody may take that memory for the paused one's. */
async function stopServing(s: Situation): Promise<void> {
  const { vmId, generation } = s;
  if (generation === undefined) return;
  try {
    await s.source.call((c, o) => c.setPaused({ vmId, generation, paused: false }, o), LIMITS);
  } catch (error) {
    // Pages went out to a destination that never ran them: the agent cannot know that, we do.
    const forced = s.source.call((c, o) => c.release({ vmId, generation, force: true }, o), LIMITS);
    await forced.catch((again: unknown) => {
      if (!hasReason(again, ErrorReason.UNKNOWN_VM))
        s.warn(`the source agent was not told that VM ${vmId} runs again: ${messageOf(error)}`);
    });
  }
}

/** Undefined: it runs. */
async function resume(driver: VmmDriver): Promise<string | undefined> {
  try {
    await driver.resumeSource();
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** What of the guest there still is beside the destination's. */
async function whatIsLeft({ driver }: Situation): Promise<string> {
  if (!driver.hasSourceGuest) return 'the snapshot is as it was';
  // Advice to resume a VMM that is gone, and its memory with it, would be worse than none.
  if (driver.sourceState !== undefined && (await driver.sourceState()) === undefined) {
    return 'the source VMM does not answer either: if its process is gone there is nothing to resume, and the guest is lost unless there is a snapshot';
  }
  return 'the source stays paused, with its memory as it was at the move: resume it only once the destination VMM is certainly gone, and what the guest did since is lost';
}

/** The guest may have run on the destination: never two of them. */
export async function leaveAsItIs(s: Situation): Promise<Aftermath> {
  const view = await lastWord(s);
  const id = s.migrationId ?? '';
  if (s.aborted && !(view instanceof Silence) && view !== 'forgotten' && !isFinalView(view)) {
    return { outcome: 'detached', advice: `the migration goes on by itself; follow it with: pagewake watch ${id}` };
  }
  const rest = await whatIsLeft(s);
  const again = `before VM ${s.vmId} can be migrated again: pagewake release ${s.vmId} --source ${s.source.address} --force`;
  if (view instanceof Silence) {
    return {
      ...(view.error === undefined ? {} : { cause: view.error }),
      outcome: 'failed-unknown',
      advice: `the migration may be going on: look at the destination (pagewake status ${id}); ${rest}`,
    };
  }
  if (view === 'forgotten') {
    return {
      outcome: 'failed-guest-lost',
      advice: `the destination agent was started anew without its state folder, so nobody brings the guest there its missing pages: end its VMM; ${rest}; ${again}`,
    };
  }
  if (view.phase === MigrationPhase.FAILED || view.phase === MigrationPhase.CANCELLED) {
    return { outcome: 'failed-guest-lost', advice: `end the destination VMM; ${rest}; ${again}` };
  }
  const how = view.phase === MigrationPhase.COMPLETED ? 'holds every page of the guest' : 'goes on with the migration';
  return {
    outcome: 'failed-unknown',
    advice: `the destination ${how}: see whether its VMM runs the guest (pagewake status ${id}); ${rest}`,
  };
}
