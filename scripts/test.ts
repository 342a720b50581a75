/**
 * `npm test`: the checks, then every test in one run of node's test runner, whose closing lines have the counts of passes, failures and
 * skips. Arguments are passed to the runner; file names among them take the place of "every test".
 */
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { check } from './check.ts';

/** Beside the code, and the slow ones last. */
const PATTERNS = [
  '{proto,core,agent-kit,source-agent,dest-agent,orchestrator}/src/**/*.test.ts',
  '{native,testvmm,shim,deploy,scripts,bench}/test/**/*.test.ts',
  'e2e/test/**/*.test.ts',
];
/** Two files at once: as many as the smallest machine has cores. Tests with guests of many vCPUs gain nothing from more. */
const CONCURRENCY = 2;
/** One test's budget: a hang is a failure with a name, not a run that never ends. */
const TEST_TIMEOUT_MS = 120_000;

const args = process.argv.slice(2);
const files = args.filter((arg) => arg.endsWith('.test.ts'));
const flags = args.filter((arg) => !files.includes(arg));

const failedChecks = files.length > 0 ? [] : check();
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
