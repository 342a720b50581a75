/** Options that every command with an agent at its other end has. */
import { Option, type Command } from 'commander';
import { UserError, type ClientLinkOptions } from '@pagewake/agent-kit';
import type { AgentOptions } from '../agents.ts';

export interface LinkFlags {
  readonly source?: string;
  readonly destination?: string;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly serverName?: string;
  readonly insecurePlaintext?: boolean;
}

const ADDRESS = '<host:port>';

export function sourceOption(): Option {
  return new Option(`--source ${ADDRESS}`, 'the source agent').env('PAGEWAKE_SOURCE');
}

export function destinationOption(): Option {
  return new Option(`--destination ${ADDRESS}`, 'the destination agent').env('PAGEWAKE_DESTINATION');
}

export function addTlsOptions(command: Command): Command {
  return command
    .option('--tls-ca <file>', 'authorities that the agents’ certificates must come from, PEM: TLS')
    .option('--tls-cert <file>', 'our certificate for agents that ask for one, PEM: mTLS')
    .option('--tls-key <file>', 'its private key, PEM')
    .option('--server-name <name>', 'name to verify in the agents’ certificates instead of their host')
    .option('--insecure-plaintext', 'allow plaintext beyond loopback');
}

function linkOf(flags: LinkFlags): ClientLinkOptions {
  const { tlsCa, tlsCert, tlsKey, serverName, insecurePlaintext } = flags;
  return { tlsCa, tlsCert, tlsKey, serverName, insecurePlaintext };
}

export function sourceOf(flags: LinkFlags): AgentOptions {
  return { address: needed(flags.source, '--source', 'PAGEWAKE_SOURCE'), ...linkOf(flags) };
}

export function destinationOf(flags: LinkFlags): AgentOptions {
  return { address: needed(flags.destination, '--destination', 'PAGEWAKE_DESTINATION'), ...linkOf(flags) };
}

function needed(value: string | undefined, flag: string, variable: string): string {
  if (value === undefined) throw new UserError(`${flag} is needed (or ${variable}): host:port of the agent`, 2);
  return value;
}
