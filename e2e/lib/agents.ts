/** Both agents as processes, each on its host, started through the CLI as a user starts them. */
import { join } from 'node:path';
import type { Host } from './hosts.ts';
import { Program, ROOT } from './processes.ts';

export const PAGEWAKE = join(ROOT, 'orchestrator/bin/pagewake.mjs');

export interface Agent {
  readonly program: Program;
  /** host:port that was bound. */
  readonly address: string;
}

export interface AgentOptions {
  readonly flags?: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
  /** The flags say how it is secured. */
  readonly tls?: boolean;
  /** Default 0: the kernel chooses. */
  readonly port?: number;
}

export type StartAgent = (host: Host, options?: AgentOptions) => Promise<Agent>;

async function startAgent(command: string, host: Host, options: AgentOptions): Promise<Agent> {
  const program = new Program(
    command,
    host,
    [
      process.execPath,
      PAGEWAKE,
      command,
      '--listen',
      `${host.address}:${options.port ?? 0}`,
      // The link between two namespaces of this machine is nobody else's.
      ...(options.tls === true ? [] : ['--insecure-plaintext']),
      ...(options.flags ?? []),
    ],
    options.env,
  );
  const line = await program.waitForStart('its address', (l) => l['msg'] === 'listening');
  return { program, address: String(line['address']) };
}

export const startSourceAgent: StartAgent = (host, options = {}) => startAgent('serve-source', host, options);

export const startDestAgent = (host: Host, vmmSocketDir: string, options: AgentOptions = {}): Promise<Agent> =>
  startAgent('serve-dest', host, { ...options, flags: ['--vmm-socket-dir', vmmSocketDir, ...(options.flags ?? [])] });
