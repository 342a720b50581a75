/** What tells the dialects apart, for who must not know them by name. Loads no package. */

export type Dialect = 'pagewake/1' | 'firecracker' | 'firecracker-secret-free';

export interface DialectTraits {
  /** Its guest waits until it is told `ready`; else it runs from the handshake on. */
  readonly guestWaits: boolean;
  /** It can hand the same memory over once more, to the agent that comes after one that died. */
  readonly comesAgain: boolean;
  /** It is told how it ended: `done`, or `failed`. */
  readonly isTold: boolean;
}

const FIRECRACKER: DialectTraits = { guestWaits: false, comesAgain: false, isTold: false };

export const DIALECTS: Readonly<Record<Dialect, DialectTraits>> = {
  'pagewake/1': { guestWaits: true, comesAgain: true, isTold: true },
  firecracker: FIRECRACKER,
  'firecracker-secret-free': FIRECRACKER,
};
