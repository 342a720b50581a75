/** Pages that name files: each of them exists, so that a page cannot outlive what it tells of. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PHASES } from '@pagewake/core';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const PAGES = globSync(['*.md', 'docs/**/*.md'], { cwd: ROOT }).toSorted();
/** `room/path/file.ext` in backticks, and targets of links within the repository. */
const NAMED = /`((?:[\w.-]+\/)+[\w.-]+\.(?:ts|mjs|c|cc|h|md|json|ya?ml|proto|Dockerfile))`/g;
const LINKED = /\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g;

for (const page of PAGES)
  test(`${page}: every file that it names exists`, () => {
    const text = readFileSync(join(ROOT, page), 'utf8');
    const named = [...text.matchAll(NAMED)].map(([, path = '']) => join(ROOT, path));
    const linked = [...text.matchAll(LINKED)].map(([, path = '']) => join(ROOT, dirname(page), path));
    const missing = [...named, ...linked].filter((path) => !existsSync(path));
    assert.deepEqual(missing, []);
  });

test('docs/design.md tells of every phase', () => {
  const text = readFileSync(join(ROOT, 'docs/design.md'), 'utf8');
  for (const phase of PHASES) assert.ok(text.includes(`| \`${phase}\``), phase);
});

test('decisions are numbered without gaps', () => {
  const numbers = globSync('docs/decisions/[0-9]*.md', { cwd: ROOT }).map((path) => Number(/(\d{4})-/.exec(path)?.[1]));
  assert.deepEqual(
    numbers.toSorted((a, b) => a - b),
    numbers.map((_, index) => index + 1),
  );
});
