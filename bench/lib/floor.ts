/** The C programs of bench/floor/: built, started, heard. */
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { makeHosts, type Host } from '../../e2e/lib/hosts.ts';
import { Program, ROOT } from '../../e2e/lib/processes.ts';

/** Both sides of every measurement are on loopback: the link is then the machine's own and the same for both. */
export const LOOPBACK: Host = makeHosts('loopback').source;

const FLOOR = join(ROOT, 'bench/floor');
/** The programs, once `buildFloor` was called. */
export const BUILD = join(FLOOR, 'build');

export function buildFloor(): void {
  const make = spawnSync('make', ['-s', `-j${availableParallelism()}`], { cwd: FLOOR, encoding: 'utf8' });
  if (make.error) throw new Error(`cannot run make (${make.error.message}); install make and a C compiler`);
  if (make.status !== 0) throw new Error(`bench/floor does not build:\n${make.stderr}`);
}

/** Who fills, as the destination program is told: `['floor', PORT]` or `['agent', SOCKET:VM]`. */
export type Filler = readonly [kind: 'floor' | 'agent', where: string];

export function startDestinationProgram(args: readonly string[]): Program {
  return new Program('destination', LOOPBACK, [join(BUILD, 'destination'), ...args]);
}

/** What memory holds (floor/content.h). */
export type Content = 'random' | 'text' | 'zeros' | 'holes';

export interface PageServer {
  readonly program: Program;
  readonly host: Host;
  readonly port: number;
  /** The memory that it serves, as another process opens it. */
  readonly memoryPath: string;
}

/** A virtual machine's host may take 6 s to bring a GiB that was not used lately. */
export const MEMORY_MS = 120_000;

/** What a program says when it has its memory, or that it is stopped. */
export async function orStop<T>(program: Program, said: Promise<T>): Promise<T> {
  try {
    return await said;
  } catch (error) {
    await program.stop();
    throw error;
  }
}

export interface PageServerOptions {
  readonly content?: Content;
  readonly host?: Host;
}

export async function startPageServer(pages: number, options: PageServerOptions = {}): Promise<PageServer> {
  const { content = 'random', host = LOOPBACK } = options;
  const command = [join(BUILD, 'page-server'), String(pages), content, host.address];
  const program = new Program('page-server', host, command);
  const line = await orStop(
    program,
    program.waitFor('its port', (l) => l['event'] === 'listening', MEMORY_MS),
  );
  const memoryPath = `/proc/${program.pid}/fd/${Number(line['fd'])}`;
  return { program, host, port: Number(line['port']), memoryPath };
}
