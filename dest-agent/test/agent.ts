/** The destination agent behind a real gRPC server, asked as an orchestrator asks it, and VMMs that hand memory over. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createLogger, fromServiceError, openChannel, startServer, startTelemetry } from '@pagewake/agent-kit';
import { isFinal } from '@pagewake/core';
import { UnixConnection } from '@pagewake/native';
import {
  createClient,
  ErrorReason,
  MigrationMode,
  MigrationPhase,
  MigrationService,
  type Migration,
  type ServiceClient,
  type WatchResponse,
} from '@pagewake/proto';
import { destServices } from '../src/main.ts';
import { PAGE_BYTES } from './pages.ts';
import { temporaryDir, Toucher, type ToucherOptions } from './toucher.ts';
import { until, within } from './wait.ts';

export const GENERATION = 3;

export interface StartOptions {
  readonly migrationId?: string;
  readonly vmId?: string;
  readonly mode?: MigrationMode;
  readonly vmmSocketName?: string;
  readonly regionNames?: string[];
}

export interface TestDest {
  readonly client: ServiceClient<typeof MigrationService>;
  readonly socketDir: string;
  /** Resolves once the VMM may connect. */
  start(sourceAddress: string, options?: StartOptions): Promise<Migration>;
  get(migrationId: string): Promise<Migration>;
  phase(migrationId: string, phase: MigrationPhase): Promise<Migration>;
  /** Everything that Watch says until it ends by itself. */
  watch(migrationId: string): Promise<readonly Migration[]>;
  /** Ends, and leaves its migrations to the next agent on the same folder. */
  leave(): Promise<void>;
}

export async function startDest(t: TestContext, options: { readonly socketDir?: string } = {}): Promise<TestDest> {
  const socketDir = options.socketDir ?? temporaryDir(t);
  const log = createLogger('test', 'silent');
  const telemetry = await startTelemetry({ serviceName: 'test', log });
  const config = {
    vmmSocketDir: socketDir,
    stateDir: undefined,
    sourceTlsCa: undefined,
    sourceTlsCert: undefined,
    sourceTlsKey: undefined,
    sourceServerName: undefined,
    insecurePlaintext: false,
    traceFaultRatio: 0,
    faultSpinUs: 0,
    faultWindowPages: 1,
  };
  const { services, registry, close } = await destServices(config, log, telemetry);
  const server = await startServer({ listen: '127.0.0.1:0', services });
  const channel = openChannel(server.address);
  let left = false;
  t.after(async () => {
    if (left) return;
    for (const session of registry.active()) if (session.phase !== 'finishing') session.cancel(true);
    await until('every session has ended', () => registry.all().every((session) => isFinal(session.phase)));
    channel.close();
    await server.shutdown(0);
    close();
  });
  const client = createClient(MigrationService, channel);
  const get = async (migrationId: string): Promise<Migration> =>
    (await client.get({ migrationId })).migration ?? assert.fail('an answer without a migration');
  const watch = async (migrationId: string): Promise<readonly Migration[]> => {
    const seen: Migration[] = [];
    const stream: AsyncIterable<WatchResponse> = client.watch({ migrationId, intervalMs: 50 });
    for await (const { migration } of stream) if (migration) seen.push(migration);
    return seen;
  };
  return {
    client,
    socketDir,
    async start(sourceAddress, { migrationId = 'm', vmId = 'demo', mode = MigrationMode.UNSPECIFIED, ...rest } = {}) {
      const request = {
        migrationId,
        vmId,
        sourceAddress,
        generation: GENERATION,
        token: Buffer.alloc(32, 7),
        mode,
        ...rest,
      };
      return (await client.start(request)).migration ?? assert.fail('an answer without a migration');
    },
    get,
    async phase(migrationId, phase) {
      const name = MigrationPhase[phase];
      let last: Migration | undefined;
      const find = async (): Promise<Migration> => {
        for await (const { migration } of client.watch({
          migrationId,
          intervalMs: 50,
        }) as AsyncIterable<WatchResponse>) {
          last = migration;
          if (migration?.phase === phase) return migration;
        }
        return assert.fail(
          `never ${name}: ended ${MigrationPhase[last?.phase ?? 0]}, ${last?.error?.message ?? 'no error'}`,
        );
      };
      return within(() => `${name} (it is ${MigrationPhase[last?.phase ?? 0]})`, find());
    },
    watch: (migrationId) => within('Watch ends', watch(migrationId)),
    async leave() {
      left = true;
      await registry.leave();
      channel.close();
      await server.shutdown(0);
      close();
    },
  };
}

export interface Handshake {
  readonly vm?: string;
  readonly fds?: readonly ('uffd' | 'memfd' | 'bitmap')[];
  readonly registered?: readonly string[];
  readonly vcpus?: readonly number[];
  /** Fields that are not always there. */
  readonly more?: Readonly<Record<string, unknown>>;
}

export const regionOf = (toucher: Toucher) => ({
  base_host_virt_addr: toucher.address,
  size: toucher.pages * PAGE_BYTES,
  offset: 0,
  page_size: PAGE_BYTES,
});

/** A process with memory, not connected yet. */
export const startVmm = (t: TestContext, options: ToucherOptions = {}): Promise<Toucher> =>
  Toucher.start(t, { pages: 64, ...options });

/** Hands the memory over on the agent's socket, from the process that owns it. */
export function handOver(vmm: Toucher, socket: string, handshake: Handshake = {}): void {
  const { vm = 'demo', fds = ['uffd', 'memfd'], registered = ['missing'], vcpus = [], more = {} } = handshake;
  const text = JSON.stringify({
    protocol: 'pagewake/1',
    vm,
    regions: [regionOf(vmm)],
    fds,
    registered,
    vcpus,
    ...more,
  });
  vmm.handOver(socket, fds, text);
}

/** A peer on the VMM socket that says what the test says. */
export class RawPeer {
  readonly #connection: UnixConnection;
  readonly #lines: string[] = [];
  #text = '';
  #closed = false;

  constructor(t: TestContext, path: string) {
    this.#connection = UnixConnection.connect(path);
    t.after(() => this.#connection.close());
    this.#connection.onData((data) => {
      const parts = (this.#text + data.toString()).split('\n');
      this.#text = parts.pop() ?? '';
      this.#lines.push(...parts);
    });
    this.#connection.onClose(() => (this.#closed = true));
  }

  send(text: string | Buffer, fds: readonly number[] = []): void {
    this.#connection.send(typeof text === 'string' ? Buffer.from(text) : text, fds);
  }

  async message(): Promise<Record<string, unknown>> {
    const line = await until('a message of the agent', () => this.#lines.shift());
    return JSON.parse(line ?? '') as Record<string, unknown>;
  }

  async closed(): Promise<void> {
    await until('the agent closes the channel', () => this.#closed);
  }

  close(): void {
    this.#connection.close();
  }
}

export const socketOf = (dest: TestDest, vmId = 'demo'): string => join(dest.socketDir, `${vmId}.sock`);

/** The name of the reason that a call fails with, and its text. */
export async function failure(call: Promise<unknown>): Promise<{ reason: string; message: string }> {
  try {
    await within('the call', call);
  } catch (error) {
    const typed = fromServiceError(error);
    return { reason: typed.reasonName, message: typed.message };
  }
  return assert.fail('did not fail');
}

export const reasonOf = ({ error }: Migration): string =>
  error ? (ErrorReason[error.reason] ?? String(error.reason)) : 'no error';
