/** A TCP connection to the guest from a third place, in a process on that host. */
import { join } from 'node:path';
import type { GuestNet } from './guest-net.ts';
import { Program, ROOT } from './processes.ts';

const ECHO_PORT = 7;

export interface Echo {
  readonly program: Program;
  /** Resolves once the guest has answered `n` more than by now; fails where the connection is lost or what comes back is wrong. */
  answers(n: number): Promise<void>;
}

export async function openEcho(net: GuestNet): Promise<Echo> {
  const program = new Program('echo client', net.client, [
    ...[process.execPath, join(ROOT, 'e2e/lib/echo-client.ts')],
    ...[net.guestAddress, String(ECHO_PORT)],
  ]);
  await program.waitForStart('a connection', (line) => line['event'] === 'connected');
  const answered = (): number => Number(program.lines.at(-1)?.['answered'] ?? 0);
  return {
    program,
    answers: async (n) => {
      const wanted = answered() + n;
      await program.waitFor(`${n} more answers`, (line) => Number(line['answered']) >= wanted);
    },
  };
}
