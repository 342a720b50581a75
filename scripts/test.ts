/**
 * `npm test`: the checks, then every test in one run of node's test runner, whose closing lines have the counts of passes, failures and
 * skips. Arguments are passed to the runner; file names among them take the place of "every test".
 */
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { check } from './check.ts';

/** The slow ones first, so that no long file is left over when the others are through. */
const PATTERNS = [
  'e2e/test/**/*.test.ts',
  '{orchestrator,dest-agent,source-agent,agent-kit,proto,core}/src/**/*.test.ts',
  '{native,testvmm,shim,deploy,scripts,bench,lab}/test/**/*.test.ts',
];
/** Files at once. The smallest machine has two cores, and one file in three waits: for a link that was cut, a guest that boots, a peer that is slow to answer. */
const CONCURRENCY = 3;
/** One test's budget: a hang is a failure with a name, not a run that never ends. */
const TEST_TIMEOUT_MS = 120_000;

const args = process.argv.slice(2);
const files = args.filter((arg) => arg.endsWith('.test.ts'));
const flags = args.filter((arg) => !files.includes(arg));

const failedChecks = files.length > 0 ? [] : await check();
const result = spawnSync(
  process.execPath,
  [
    '--test',
    `--test-concurrency=${CONCURRENCY}`,
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    '--test-reporter=spec',
    ...flags,
    ...(files.length > 0 ? files : PATTERNS.flatMap((pattern) => globSync(pattern).toSorted())),
  ],
  { stdio: 'inherit' },
);
if (failedChecks.length > 0) process.stdout.write(`checks that failed: ${failedChecks.join(', ')}\n`);
process.exitCode = failedChecks.length === 0 && result.status === 0 ? 0 : 1;
