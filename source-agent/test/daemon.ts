/** The source agent as a daemon. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

const PROGRAM = `
  import { serveSource } from '@pagewake/source-agent/main';
  process.exitCode = await serveSource(process.argv.slice(1));
`;

export interface Daemon {
  /** From its log: where it listens. Rejects if it exits first. */
  readonly address: Promise<string>;
  readonly exit: Promise<{ code: number | null; stdout: string; stderr: string }>;
  kill(signal: NodeJS.Signals): void;
}

/** The agent as a process of its own. */
export function startDaemon(t: TestContext, argv: readonly string[], env: Record<string, string> = {}): Daemon {
  const child = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM, '--', ...argv], {
    cwd: join(import.meta.dirname, '../src'),
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.on('data', (text: Buffer) => (output.stdout += text.toString()));
  const address = new Promise<string>((resolve, reject) => {
    child.stderr.on('data', (text: Buffer) => {
      output.stderr += text.toString();
      const listening = /"address":"([^"]+)".*"msg":"listening"/.exec(output.stderr)?.[1];
      if (listening !== undefined) resolve(listening);
    });
    child.once('close', () => reject(new Error(`exited: ${output.stderr}`)));
  });
  // Not every test waits for it.
  address.catch(() => undefined);
  const exit = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) =>
    child.once('close', (code) => resolve({ code, ...output })),
  );
  t.after(async () => {
    child.kill('SIGKILL');
    await exit;
  });
  return { address, exit, kill: (signal) => child.kill(signal) };
}
