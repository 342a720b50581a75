/** The phases of a migration as its orchestrator sees it: a closed union; a transition that is not in the table throws. */

export type RunningPhase =
  /** Both agents are told; the guest runs on the source. All that is slow happens here. */
  | 'preparing'
  /** The guest runs nowhere: paused on the source, not yet running on the destination. */
  | 'blackout'
  /** The guest runs on the destination; pages that it lacks are on their way. */
  | 'filling';

export type FinalPhase =
  /** The destination holds every page, and the source's memory is released. */
  | 'completed'
  /** It never began: refused, or an agent was not there. No VMM was told anything, what an agent was told is taken back, and the source is as it was, whatever that is. */
  | 'failed-untouched'
  /** Nothing moved: the guest runs on the source as before (a snapshot is as it was). */
  | 'failed-source-runs'
  /** The guest runs nowhere, but nothing is lost: it is paused on the source and could not be resumed by us. */
  | 'failed-source-paused'
  /** The guest may have run on the destination and cannot go on there. The source stays paused. */
  | 'failed-guest-lost'
  /**
   * The destination agent does not answer: the migration may be going on, or not, and the source stays paused. Or, before the guest has moved,
   * the source VMM does not.
   */
  | 'failed-unknown'
  /** We were told to stop when the guest had moved, or might have: the migration goes on without us. */
  | 'detached';

export type MigrationPhase = RunningPhase | FinalPhase;
export type FailedPhase = Exclude<FinalPhase, 'completed'>;

const NEXT: Readonly<Record<MigrationPhase, readonly MigrationPhase[]>> = {
  // The last two: a VMM that was asked to pause, and has not stopped its guest yet as far as we have seen.
  preparing: ['blackout', 'failed-untouched', 'failed-source-runs', 'failed-source-paused', 'failed-unknown'],
  blackout: [
    'filling',
    'failed-source-runs',
    'failed-source-paused',
    'failed-guest-lost',
    'failed-unknown',
    'detached',
  ],
  filling: ['completed', 'failed-guest-lost', 'failed-unknown', 'detached'],
  completed: [],
  'failed-untouched': [],
  'failed-source-runs': [],
  'failed-source-paused': [],
  'failed-guest-lost': [],
  'failed-unknown': [],
  detached: [],
};

export const MIGRATION_PHASES = Object.keys(NEXT) as readonly MigrationPhase[];

export const isFinalPhase = (phase: MigrationPhase): phase is FinalPhase => NEXT[phase].length === 0;

export const mayFollow = (from: MigrationPhase, to: MigrationPhase): boolean => NEXT[from].includes(to);

export interface PhaseTime {
  readonly phase: MigrationPhase;
  readonly ms: number;
}

/** Where a migration is, and how long it was in each phase before. */
export class PhaseClock {
  readonly #times: PhaseTime[] = [];
  readonly #nowMs: () => number;
  #phase: MigrationPhase = 'preparing';
  #sinceMs: number;

  constructor(nowMs: () => number = () => performance.now()) {
    this.#nowMs = nowMs;
    this.#sinceMs = nowMs();
  }

  get phase(): MigrationPhase {
    return this.#phase;
  }

  /** Phases that are over, in order. */
  get times(): readonly PhaseTime[] {
    return this.#times;
  }

  /** @returns the phase that is over. Throws where `to` may not follow: a bug, not an answer to a caller. */
  advance(to: MigrationPhase): PhaseTime {
    if (!mayFollow(this.#phase, to)) throw new Error(`a migration that is ${this.#phase} cannot become ${to}`);
    const nowMs = this.#nowMs();
    const over: PhaseTime = { phase: this.#phase, ms: nowMs - this.#sinceMs };
    this.#times.push(over);
    this.#phase = to;
    this.#sinceMs = nowMs;
    return over;
  }
}
