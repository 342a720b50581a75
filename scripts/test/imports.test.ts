/** The import rules of the rooms are enforced, and can fail: a forbidden import in each room is found by the same configuration that `npm run lint` uses. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const FORBIDDEN: readonly [file: string, imported: string][] = [
  ['core/src/x.ts', '@pagewake/native'],
  ['core/src/x.ts', 'node:fs'],
  ['proto/src/x.ts', '@pagewake/core'],
  ['native/ts/x.ts', '@pagewake/core'],
  ['agent-kit/src/x.ts', '@pagewake/native'],
  ['agent-kit/src/x.ts', '@pagewake/orchestrator'],
  ['source-agent/src/domain/x.ts', '@pagewake/native'],
  ['source-agent/src/domain/x.ts', '@pagewake/proto'],
  ['source-agent/src/adapters/x.ts', '@pagewake/dest-agent/main'],
  ['dest-agent/src/lanes/x.ts', '@pagewake/native'],
  ['dest-agent/src/session/x.ts', '@pagewake/proto'],
  ['dest-agent/src/adapters/x.ts', '@pagewake/source-agent/main'],
  ['dest-agent/src/adapters/x.ts', '@pagewake/orchestrator'],
  ['orchestrator/src/x.ts', '@pagewake/dest-agent/main'],
  ['orchestrator/src/cli/x.ts', '@pagewake/e2e'],
  ['e2e/lib/x.ts', '@pagewake/source-agent/main'],
  ['e2e/lib/x.ts', '@pagewake/native'],
];

const ALLOWED: readonly [file: string, imported: string][] = [
  ['dest-agent/src/adapters/x.ts', '@pagewake/native'],
  ['source-agent/src/adapters/x.ts', '@pagewake/proto'],
  ['dest-agent/src/lanes/x.ts', '@pagewake/core'],
  ['orchestrator/src/cli/x.ts', '@pagewake/dest-agent/main'],
  ['e2e/lib/x.ts', '@pagewake/orchestrator'],
];

function lint(file: string, imported: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'pagewake-lint-'));
  try {
    copyFileSync(join(ROOT, '.oxlintrc.json'), join(folder, '.oxlintrc.json'));
    mkdirSync(join(folder, dirname(file)), { recursive: true });
    writeFileSync(join(folder, file), `import { x } from '${imported}';\nexport const y = x;\n`);
    const { stdout, stderr } = spawnSync(join(ROOT, 'node_modules/.bin/oxlint'), ['.'], {
      cwd: folder,
      encoding: 'utf8',
    });
    return stdout + stderr;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

for (const [file, imported] of FORBIDDEN)
  test(`${file} may not import ${imported}`, () => {
    assert.match(lint(file, imported), /no-restricted-imports/);
  });

for (const [file, imported] of ALLOWED)
  test(`${file} may import ${imported}`, () => {
    assert.doesNotMatch(lint(file, imported), /no-restricted-imports/);
  });
