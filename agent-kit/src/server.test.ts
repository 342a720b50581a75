import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { status, type Client } from '@grpc/grpc-js';
import {
  createClient,
  ErrorReason,
  implement,
  MigrationService,
  WatchResponseSchema,
  writeMessage,
  type Handlers,
} from '@pagewake/proto';
import { checkHealth, filesContaining, listServices } from '../test/index.ts';
import { openChannel } from './credentials.ts';
import { PagewakeError } from './errors.ts';
import { fromServiceError, toServiceError } from './service-errors.ts';
import { startServer, type RunningServer, type ServerOptions } from './server.ts';

const BUDGET = { timeout: 10_000 };

const handlers: Handlers<typeof MigrationService> = {
  start: () => ({ migration: { vmId: 'a' } }),
  get: ({ migrationId }) => {
    throw new PagewakeError(ErrorReason.UNKNOWN_MIGRATION, `no migration ${migrationId}`, {
      migration_id: migrationId,
    });
  },
  list: () => ({ migrations: [{ vmId: 'a' }, { vmId: 'b' }] }),
  watch: async (call) => {
    for (let n = 0; n < 3; n++) {
      await writeMessage(call, create(WatchResponseSchema, { migration: { vmId: String(n) } }));
    }
    if (call.request.migrationId === 'broken') throw new PagewakeError(ErrorReason.VMM_EXITED, 'gone');
  },
  pause: () => Promise.reject(new TypeError('secret detail of a bug')),
  resume: ({ migrationId }, { signal }) =>
    new Promise((resolve) => signal.addEventListener('abort', () => resolve({ migration: { migrationId } }))),
  cancel: () => ({}),
};
const bugs: unknown[] = [];
const bound = implement(MigrationService, handlers, (error) => toServiceError(error, (bug) => bugs.push(bug)));

async function serve(t: TestContext, options: Partial<ServerOptions> = {}): Promise<RunningServer> {
  const server = await startServer({ listen: '127.0.0.1:0', services: [bound], ...options });
  t.after(() => server.shutdown(100));
  return server;
}

function connect(t: TestContext, address: string): Client {
  const channel = openChannel(address);
  t.after(() => channel.close());
  return channel;
}

test('unary calls, streams and typed errors cross the wire as they were made', BUDGET, async (t) => {
  const server = await serve(t);
  const client = createClient(MigrationService, connect(t, server.address));
  const { migrations } = await client.list({});
  assert.deepEqual(
    migrations.map((m) => m.vmId),
    ['a', 'b'],
  );

  const seen: string[] = [];
  for await (const message of client.watch({}))
    seen.push((message as { migration?: { vmId: string } }).migration?.vmId ?? '');
  assert.deepEqual(seen, ['0', '1', '2']);

  const unknown = fromServiceError(await client.get({ migrationId: 'x' }).catch((e: unknown) => e));
  assert.equal(unknown.reason, ErrorReason.UNKNOWN_MIGRATION);
  assert.equal(unknown.message, 'no migration x');
  assert.deepEqual({ ...unknown.metadata }, { migration_id: 'x' });
});

test('a stream that fails ends with its typed error after what it had written', BUDGET, async (t) => {
  const server = await serve(t);
  const client = createClient(MigrationService, connect(t, server.address));
  let seen = 0;
  const error = await (async () => {
    for await (const _ of client.watch({ migrationId: 'broken' })) seen++;
    return undefined;
  })().catch((e: unknown) => e);
  assert.equal(fromServiceError(error).reason, ErrorReason.VMM_EXITED);
  assert.equal(seen, 3);
});

test('a bug in a handler is INTERNAL to the caller, who learns nothing of its text', BUDGET, async (t) => {
  const server = await serve(t);
  const client = createClient(MigrationService, connect(t, server.address));
  const error = fromServiceError(await client.pause({}).catch((e: unknown) => e));
  assert.equal(error.reason, ErrorReason.INTERNAL);
  assert.doesNotMatch(error.message, /secret/);
  assert.match(String(bugs.at(-1)), /secret/);
});

test('an aborted signal and a passed deadline end a call', BUDGET, async (t) => {
  const server = await serve(t);
  const client = createClient(MigrationService, connect(t, server.address));
  const abort = new AbortController();
  const call = client.resume({ migrationId: 'm' }, { signal: abort.signal });
  setTimeout(() => abort.abort(), 50);
  assert.equal(fromServiceError(await call.catch((e: unknown) => e)).reason, ErrorReason.CANCELLED);
  const late = fromServiceError(await client.resume({}, { timeoutMs: 50 }).catch((e: unknown) => e));
  assert.equal(late.metadata['grpc_code'], 'DEADLINE_EXCEEDED');
  const before = await client.resume({}, { signal: AbortSignal.abort() }).catch((e: unknown) => e);
  assert.equal(fromServiceError(before).reason, ErrorReason.CANCELLED);
});

test('a server that is not there is told apart from one that refuses', BUDGET, async (t) => {
  const client = createClient(MigrationService, connect(t, '127.0.0.1:1'));
  const error = fromServiceError(await client.list({}).catch((e: unknown) => e), ErrorReason.SOURCE_UNREACHABLE);
  assert.equal(error.reason, ErrorReason.SOURCE_UNREACHABLE);
});

test('health says SERVING for the server and each service, and NOT_FOUND for others', BUDGET, async (t) => {
  const { address } = await serve(t);
  assert.equal(await checkHealth(address, ''), 'SERVING');
  assert.equal(await checkHealth(address, 'pagewake.v1.MigrationService'), 'SERVING');
  assert.equal(await checkHealth(address, 'pagewake.v1.Nothing'), status.NOT_FOUND);
});

test('reflection lists the services and gives the files that a symbol needs', BUDGET, async (t) => {
  const { address } = await serve(t);
  assert.deepEqual(await listServices(address), ['grpc.health.v1.Health', 'pagewake.v1.MigrationService']);
  assert.deepEqual(await filesContaining(address, 'pagewake.v1.MigrationService'), [
    'google/protobuf/any.proto',
    'google/protobuf/timestamp.proto',
    'pagewake/v1/common.proto',
    'pagewake/v1/migration_service.proto',
  ]);
});

test('a port in use, a foreign address and a bad one are errors that name the address', BUDGET, async (t) => {
  const taken = createServer().listen(0, '127.0.0.1');
  t.after(() => taken.close());
  await new Promise((resolve) => taken.once('listening', resolve));
  const at = taken.address();
  assert(typeof at === 'object' && at !== null);
  const listen = `127.0.0.1:${String(at.port)}`;
  await assert.rejects(serve(t, { listen }), { message: new RegExp(`cannot listen on ${listen}: the port is in use`) });
  await assert.rejects(
    serve(t, { listen: '192.0.2.1:0', insecurePlaintext: true }),
    /192\.0\.2\.1:0: this host has no such/,
  );
  await assert.rejects(serve(t, { listen: 'nowhere' }), /"nowhere" is not an address/);
});

test('plaintext is refused beyond loopback on both sides, unless the flag is given', BUDGET, async (t) => {
  await assert.rejects(
    serve(t, { listen: '0.0.0.0:0' }),
    /refusing plaintext on 0\.0\.0\.0:0.*--tls-cert and --tls-key/,
  );
  const open = await serve(t, { listen: '0.0.0.0:0', insecurePlaintext: true });
  assert.equal(open.security, 'plaintext');
  assert.throws(() => openChannel('10.0.0.1:7701'), /refusing plaintext to 10\.0\.0\.1:7701: give --tls-ca/);
  openChannel('10.0.0.1:7701', { insecurePlaintext: true }).close();
});

test('shutdown cuts a call that does not end within its budget', BUDGET, async (t) => {
  const server = await serve(t);
  const client = createClient(MigrationService, connect(t, server.address));
  const call = client.resume({}).catch((e: unknown) => e);
  await client.list({});
  await server.shutdown(50);
  assert.notEqual(fromServiceError(await call).code, status.OK);
  await assert.rejects(client.list({}, { timeoutMs: 1000 }));
});
