/** Documents that name tests name tests that exist. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../lib/processes.ts';

/** `path/of/file`: “a name”, “another”. */
const SHOWN_BY = /`([\w./-]+\.(?:ts|c))`: ((?:“[^”]+”(?:, )?)+)/g;

test('docs/kernel.md: whatever is said of the design is shown by a check of that name', () => {
  const text = readFileSync(join(ROOT, 'docs/kernel.md'), 'utf8');
  const shown = [...text.matchAll(SHOWN_BY)];
  assert.ok(shown.length >= 8, `${shown.length} places name a check`);
  for (const [, path = '', names = ''] of shown) {
    const file = readFileSync(join(ROOT, path), 'utf8');
    for (const [, name = ''] of names.matchAll(/“([^”]+)”/g)) assert.ok(file.includes(name), `${path}: “${name}”`);
  }
});
