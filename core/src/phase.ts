/** The phases of a migration on the destination: a closed union; a transition that is not in the table throws. */
export type Phase =
  | 'preparing'
  | 'awaiting-vmm'
  | 'opening'
  | 'held'
  | 'filling'
  | 'paused'
  | 'interrupted'
  | 'finishing'
  | 'completed'
  | 'failed'
  | 'cancelled';

const NEXT: Readonly<Record<Phase, readonly Phase[]>> = {
  preparing: ['awaiting-vmm', 'failed', 'cancelled'],
  'awaiting-vmm': ['opening', 'failed', 'cancelled'],
  opening: ['held', 'filling', 'failed', 'cancelled'],
  held: ['filling', 'failed', 'cancelled'],
  filling: ['paused', 'interrupted', 'finishing', 'failed', 'cancelled'],
  paused: ['filling', 'interrupted', 'finishing', 'failed', 'cancelled'],
  interrupted: ['filling', 'paused', 'finishing', 'failed', 'cancelled'],
  finishing: ['completed', 'failed'],
  completed: [],
  failed: [],
  cancelled: [],
};

export const PHASES = Object.keys(NEXT) as readonly Phase[];

export class PhaseError extends Error {
  override readonly name = 'PhaseError';
}

export const isFinal = (phase: Phase): boolean => NEXT[phase].length === 0;

export const mayFollow = (from: Phase, to: Phase): boolean => NEXT[from].includes(to);

/** @throws PhaseError where `to` may not follow `from`. */
export function advance(from: Phase, to: Phase): Phase {
  if (!mayFollow(from, to)) throw new PhaseError(`a migration that is ${from} cannot become ${to}`);
  return to;
}
