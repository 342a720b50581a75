/** Everything that can be said without running the product: types, lint with the import rules, format, the contract and its generated code. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface Check {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
}

const generated = mkdtempSync(join(tmpdir(), 'pagewake-gen-'));
const CHECKS: readonly Check[] = [
  { name: 'types', command: ['tsc', '-p', '.'] },
  { name: 'lint and import rules', command: ['oxlint', '--type-aware', '--deny-warnings', '.'] },
  { name: 'format', command: ['prettier', '--check', '--log-level', 'warn', '.'] },
  { name: 'proto lint', command: ['buf', 'lint'] },
  { name: 'proto generate', command: ['buf', 'generate', '--output', generated] },
  { name: 'generated code is current', command: ['diff', '-r', join(generated, 'proto/src/gen'), 'proto/src/gen'] },
];

/** @returns the names of the checks that failed; what they said has been printed */
export function check(): string[] {
  const failed: string[] = [];
  for (const { name, command } of CHECKS) {
    const [program, ...args] = command;
    const started = performance.now();
    const result = spawnSync(program, args, { encoding: 'utf8' });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    const ok = result.status === 0;
    process.stdout.write(`${ok ? 'ok' : 'FAILED'}  ${name} (${seconds} s)\n`);
    if (ok) continue;
    failed.push(name);
    process.stdout.write(`${result.stdout}${result.stderr}${result.error ? result.error.message : ''}\n`);
  }
  rmSync(generated, { recursive: true, force: true });
  return failed;
}

if (import.meta.main) process.exitCode = check().length === 0 ? 0 : 1;
