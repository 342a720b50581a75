/** What a VM on the source may be, and what may follow what. */
export type VmState = 'registered' | 'ready' | 'serving' | 'completed';

const MAY_FOLLOW: Readonly<Record<VmState, readonly VmState[]>> = {
  registered: ['ready'],
  // Back: the VM runs again.
  ready: ['serving', 'registered'],
  // No way back: it may be running elsewhere.
  serving: ['completed'],
  // Final. A VM that comes home is registered anew, with a new generation.
  completed: [],
};

/** Returns `to`, or throws: a transition that the table lacks is a bug, not an answer to a caller. */
export function transition(from: VmState, to: VmState): VmState {
  if (!MAY_FOLLOW[from].includes(to)) throw new Error(`a VM cannot go from ${from} to ${to}`);
  return to;
}
