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
  ['core/src/x.ts', 'node:fs/promises'],
  ['core/src/x.ts', 'node:crypto'],
  ['core/src/x.ts', 'node:os'],
  ['core/src/x.ts', 'node:test'],
  ['core/src/x.ts', 'fs'],
  ['core/src/x.ts', 'timers/promises'],
  ['core/src/x.ts', '../../native/ts/index.ts'],
  ['core/src/x.ts', '../../node_modules/@pagewake/native/ts/index.ts'],
  ['core/src/x.test.ts', 'node:fs'],
  ['core/src/x.test.ts', 'node:async_hooks'],
  ['core/src/x.test.ts', 'node:timers/promises'],
  ['core/src/x.test.ts', 'node:test/reporters'],
  ['core/src/x.test.ts', 'crypto'],
  ['core/src/x.test.ts', '../../proto/src/index.ts'],
  ['proto/src/x.ts', '@pagewake/core'],
  ['proto/src/x.ts', '../../core/src/index.ts'],
  ['native/ts/x.ts', '@pagewake/core'],
  ['native/ts/x.ts', '../../agent-kit/src/index.ts'],
  ['agent-kit/src/x.ts', '@pagewake/native'],
  ['agent-kit/src/x.ts', '@pagewake/native/x'],
  ['agent-kit/src/x.ts', '@pagewake/orchestrator'],
  ['agent-kit/src/x.ts', '../../native/ts/index.ts'],
  ['agent-kit/test/x.ts', '../../dest-agent/test/agent.ts'],
  ['source-agent/src/domain/x.ts', '@pagewake/native'],
  ['source-agent/src/domain/x.ts', '@pagewake/proto'],
  ['source-agent/src/domain/x.ts', '@pagewake/proto/x'],
  ['source-agent/src/domain/x.ts', '../../../proto/src/index.ts'],
  ['source-agent/src/adapters/x.ts', '@pagewake/dest-agent/main'],
  ['source-agent/src/adapters/grpc/x.test.ts', '../../../../dest-agent/test/toucher.ts'],
  ['source-agent/test/x.ts', '@pagewake/dest-agent/main'],
  ['source-agent/test/x.ts', '../../native/test/toucher.ts'],
  ['dest-agent/src/lanes/x.ts', '@pagewake/native'],
  ['dest-agent/src/lanes/x.ts', '@pagewake/native/x'],
  ['dest-agent/src/lanes/x.ts', '../../../native/ts/index.ts'],
  ['dest-agent/src/lanes/x.ts', './../../../native/ts/index.ts'],
  ['dest-agent/src/lanes/x.ts', '../../../core/src/index.ts'],
  ['dest-agent/src/lanes/x.ts', '../../../agent-kit/src/index.ts'],
  ['dest-agent/src/session/x.ts', '@pagewake/proto'],
  ['dest-agent/src/session/x.ts', '@pagewake/proto/x'],
  ['dest-agent/src/x.ts', '../../native'],
  ['dest-agent/src/adapters/x.ts', '../../../native/ts/index.ts'],
  ['dest-agent/src/adapters/x.ts', '../../../source-agent/src/main.ts'],
  ['dest-agent/test/x.ts', '@pagewake/source-agent/main'],
  ['dest-agent/src/adapters/x.ts', '@pagewake/source-agent/main'],
  ['dest-agent/src/adapters/x.ts', '@pagewake/orchestrator'],
  ['orchestrator/src/x.ts', '@pagewake/dest-agent/main'],
  ['orchestrator/src/x.ts', '../../dest-agent/src/main.ts'],
  ['orchestrator/src/cli/x.ts', '@pagewake/e2e'],
  ['orchestrator/src/cli/x.ts', '../../../e2e/lib/vmm.ts'],
  ['e2e/lib/x.ts', '@pagewake/source-agent/main'],
  ['e2e/lib/x.ts', '@pagewake/native'],
  ['e2e/lib/x.ts', '../../source-agent/src/main.ts'],
  ['bench/lib/x.ts', '../../native/ts/index.ts'],
  ['bench/lib/x.ts', '../../shim/test/x.ts'],
  ['shim/test/x.ts', '@pagewake/core'],
  ['shim/test/x.ts', '@pagewake/dest-agent/main'],
  ['shim/test/x.ts', '../../native/test/support.ts'],
];

const ALLOWED: readonly [file: string, imported: string][] = [
  ['core/src/x.ts', 'zod'],
  ['core/src/x.ts', './ledger/fs.ts'],
  ['core/src/x.test.ts', 'node:test'],
  ['core/src/x.test.ts', 'node:assert/strict'],
  ['dest-agent/src/session/x.test.ts', '@pagewake/native'],
  ['dest-agent/src/session/x.test.ts', '../../test/agent.ts'],
  ['dest-agent/src/session/x.ts', '../adapters/memory.ts'],
  ['dest-agent/test/x.ts', '@pagewake/native'],
  ['dest-agent/test/x.ts', '../src/main.ts'],
  ['native/test/x.ts', '../ts/index.ts'],
  ['bench/lib/x.ts', '../../e2e/lib/processes.ts'],
  ['shim/test/x.ts', '@pagewake/native'],
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
    // With the words of a finding: a configuration that cannot be read names the rule as well.
    assert.match(lint(file, imported), /eslint\(no-restricted-imports\): '/);
  });

for (const [file, imported] of ALLOWED)
  test(`${file} may import ${imported}`, () => {
    const found = lint(file, imported);
    assert.match(found, /on 1 file /);
    assert.doesNotMatch(found, /no-restricted-imports/);
  });
