import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { BUDGET } from '../../test/wait.ts';
import { rehearseFaults } from './rehearsal.ts';

const descriptors = (): number => readdirSync('/proc/self/fd').length;

for (const windowPages of [1, 64])
  test(
    `a rehearsal resolves every fault of its own, with windows of ${windowPages}, and leaves nothing open`,
    BUDGET,
    async () => {
      const before = descriptors();
      assert.deepEqual(await rehearseFaults({ spinUs: 1000, windowPages }), { faults: 2048, whole: true });
      assert.equal(descriptors(), before);
    },
  );
