import type { Outcome } from '@pagewake/native';

/** The outcome of a read that did not bring all of it, in words for an error message. */
export function told(outcome: Outcome): string {
  const after = `after ${String(outcome.bytes)} bytes`;
  if (outcome.kind === 'done') return `it ends ${after}`;
  if (outcome.kind === 'exited') return 'the process has exited';
  if (outcome.kind === 'unmapped' || outcome.kind === 'absent') return `not mapped, or not readable, ${after}`;
  if (outcome.kind === 'refused') return `${outcome.errno} ${after}`;
  return `${outcome.kind} ${after}`;
}
