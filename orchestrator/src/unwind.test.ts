import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { MigrationMode, MigrationPhase, MigrationSchema } from '@pagewake/proto';
import { endedBeforeReady } from './unwind.ts';

const CASES: readonly (readonly [string, boolean, MessageInitShape<typeof MigrationSchema>])[] = [
  ['refused at the hand-over', true, { phase: MigrationPhase.FAILED }],
  ['cancelled before the hand-over', true, { phase: MigrationPhase.CANCELLED, progress: { pagesTotal: 0n } }],
  ['failed once its memory was being filled', false, { phase: MigrationPhase.FAILED, progress: { fillingMs: 3 } }],
  [
    'failed in the same millisecond, but a fault was seen',
    false,
    { phase: MigrationPhase.FAILED, faults: { total: 1n } },
  ],
  [
    'eager, failed half way',
    true,
    {
      phase: MigrationPhase.FAILED,
      mode: MigrationMode.EAGER,
      progress: { pagesTotal: 10n, pagesPresent: 5n, pagesByPrefetch: 5n, fillingMs: 100 },
    },
  ],
  [
    'eager, failed when whole: it may have been told to run',
    false,
    {
      phase: MigrationPhase.FAILED,
      mode: MigrationMode.EAGER,
      progress: { pagesTotal: 10n, pagesPresent: 10n, pagesByPrefetch: 10n, fillingMs: 100 },
    },
  ],
  ['still opening', false, { phase: MigrationPhase.OPENING }],
  ['completed', false, { phase: MigrationPhase.COMPLETED }],
];

for (const [what, never, view] of CASES) {
  test(`a migration ${what}: its guest ${never ? 'never ran' : 'may have run'}`, () => {
    assert.equal(endedBeforeReady(create(MigrationSchema, view)), never);
  });
}
