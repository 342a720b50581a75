import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { STAGE_NAMES, STAGES } from '../stages.ts';

const ROOM = new URL('../kernel/', import.meta.url);

test(
  'a guest on guest_memfd is migrated by stage-2 exits, userfaultfd and write()',
  {
    skip: 'the lab boots a kernel of its own: npm run lab',
  },
  () => undefined,
);

test('every patch says what it is, is numbered, and names the kernel’s licence', () => {
  const patches = readdirSync(ROOM)
    .filter((name) => name.endsWith('.patch'))
    .toSorted();
  assert.ok(patches.length > 0);
  for (const [index, name] of patches.entries()) {
    const text = readFileSync(new URL(name, ROOM), 'utf8');
    assert.ok(name.startsWith(`000${index + 1}-`), name);
    assert.ok(text.startsWith(`Subject: [PATCH ${index + 1}/${patches.length}] `), name);
    assert.match(text, /^SPDX-License-Identifier: GPL-2\.0$/m, name);
  }
});

test('there is a stage for every name, in the order of the names', () => {
  const names = STAGES.map(({ name }) => name);
  assert.deepEqual(
    names,
    STAGE_NAMES.filter((name) => names.includes(name)),
  );
});
