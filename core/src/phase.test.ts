import assert from 'node:assert/strict';
import { test } from 'node:test';
import { advance, isFinal, mayFollow, PhaseError, PHASES, type Phase } from './phase.ts';

/** Written out a second time on purpose: a change of the table has to be made twice. */
const ALLOWED: ReadonlySet<string> = new Set([
  'preparing>awaiting-vmm',
  'preparing>failed',
  'preparing>cancelled',
  'awaiting-vmm>opening',
  'awaiting-vmm>failed',
  'awaiting-vmm>cancelled',
  'opening>held',
  'opening>filling',
  'opening>failed',
  'opening>cancelled',
  'held>filling',
  'held>failed',
  'held>cancelled',
  'filling>paused',
  'filling>interrupted',
  'filling>finishing',
  'filling>failed',
  'filling>cancelled',
  'paused>filling',
  'paused>interrupted',
  'paused>finishing',
  'paused>failed',
  'paused>cancelled',
  'interrupted>filling',
  'interrupted>paused',
  'interrupted>finishing',
  'interrupted>failed',
  'interrupted>cancelled',
  'finishing>completed',
  'finishing>failed',
]);

test('there are eleven phases', () => {
  assert.equal(PHASES.length, 11);
});

for (const from of PHASES)
  for (const to of PHASES) {
    const allowed = ALLOWED.has(`${from}>${to}`);
    test(`${from} ${allowed ? 'may' : 'must not'} become ${to}`, () => {
      assert.equal(mayFollow(from, to), allowed);
      if (allowed) assert.equal(advance(from, to), to);
      else
        assert.throws(
          () => advance(from, to),
          (error) => error instanceof PhaseError && error.message === `a migration that is ${from} cannot become ${to}`,
        );
    });
  }

test('completed, failed and cancelled are final, and every other phase can fail', () => {
  const final: readonly Phase[] = ['completed', 'failed', 'cancelled'];
  for (const phase of PHASES) {
    assert.equal(isFinal(phase), final.includes(phase), phase);
    if (!isFinal(phase)) assert(mayFollow(phase, 'failed'), phase);
  }
});
