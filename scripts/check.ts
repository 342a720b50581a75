/** Everything that can be said without running the product: types, lint with the import rules, format, the contract and its generated code. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

interface Check {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
}

const run = promisify(execFile);
const generated = mkdtempSync(join(tmpdir(), 'pagewake-gen-'));
/** Those of one row follow each other; the rows run beside each other. */
const CHECKS: readonly (readonly Check[])[] = [
  // It works through the files on one core, one after the other, and most of them are what they were.
  [
    {
      name: 'format',
      command: ['prettier', '--check', '--log-level', 'warn', '--cache', '--cache-strategy', 'content', '.'],
    },
  ],
  [
    { name: 'types', command: ['tsc', '-p', '.'] },
    { name: 'lint and import rules', command: ['oxlint', '--type-aware', '--deny-warnings', '.'] },
    { name: 'proto lint', command: ['buf', 'lint'] },
    { name: 'proto generate', command: ['buf', 'generate', '--output', generated] },
    { name: 'generated code is current', command: ['diff', '-r', join(generated, 'proto/src/gen'), 'proto/src/gen'] },
  ],
];

/** Undefined: it holds. Else what the program said, or why there was none. */
async function saidAgainst([program, ...args]: Check['command']): Promise<string | undefined> {
  try {
    await run(program, args, { maxBuffer: Infinity });
    return undefined;
  } catch (error) {
    const { stdout = '', stderr = '', message } = error as Error & { stdout?: string; stderr?: string };
    return stdout + stderr || message;
  }
}

/** @returns the names of the checks that failed; what they said has been printed */
export async function check(): Promise<string[]> {
  const failed: string[] = [];
  const rows = CHECKS.map(async (row) => {
    for (const { name, command } of row) {
      const started = performance.now();
      const against = await saidAgainst(command);
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      process.stdout.write(`${against === undefined ? 'ok' : 'FAILED'}  ${name} (${seconds} s)\n`);
      if (against === undefined) continue;
      failed.push(name);
      process.stdout.write(`${against}\n`);
    }
  });
  await Promise.all(rows);
  rmSync(generated, { recursive: true, force: true });
  return failed;
}

if (import.meta.main) process.exitCode = (await check()).length === 0 ? 0 : 1;
