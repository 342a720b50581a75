/** The watch against a real gRPC server that loses its streams, goes away, and comes back having forgotten. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { PagewakeError, startServer, toServiceError, type RunningServer } from '@pagewake/agent-kit';
import { OWN_LOOPBACK } from '@pagewake/agent-kit/testing';
import {
  ErrorReason,
  implement,
  MigrationPhase,
  MigrationService,
  WatchResponseSchema,
  type Handlers,
} from '@pagewake/proto';
import { connectDestination } from './agents.ts';
import { watchMigration, type WatchOptions } from './watch.ts';

const BUDGET = { timeout: 20_000 };
type Watch = Handlers<typeof MigrationService>['watch'];
type WatchCall = Parameters<Watch>[0];

const unused = (): never => {
  throw new PagewakeError(ErrorReason.INTERNAL, 'not part of this test');
};
async function serve(t: TestContext, watch: Watch, listen = `${OWN_LOOPBACK}:0`): Promise<RunningServer> {
  const handlers = { start: unused, get: unused, list: unused, pause: unused, resume: unused, cancel: unused, watch };
  const bound = implement(MigrationService, handlers, (error) => toServiceError(error));
  const server = await startServer({ listen, services: [bound] });
  t.after(() => server.shutdown(50));
  return server;
}

const say = (call: WatchCall, phase: MigrationPhase): boolean =>
  call.write(create(WatchResponseSchema, { migration: { migrationId: 'm', phase } }));

function follow(t: TestContext, address: string, options: Partial<WatchOptions> = {}) {
  const agent = connectDestination({ address });
  t.after(() => agent.close());
  const phases: MigrationPhase[] = [];
  const losses: string[] = [];
  const ended = watchMigration(agent, 'm', {
    intervalMs: 100,
    lossBudgetMs: 15_000,
    onView: ({ phase }) => phases.push(phase),
    onLost: ({ message }) => losses.push(message),
    ...options,
  });
  return { ended, phases, losses };
}

test('a stream that breaks off is opened again, and the loss is told once', BUDGET, async (t) => {
  let streams = 0;
  const { address } = await serve(t, (call) => {
    streams++;
    say(call, MigrationPhase.FILLING);
    if (streams === 3) say(call, MigrationPhase.COMPLETED);
  });
  const { ended, phases, losses } = follow(t, address);
  assert.equal((await ended).phase, MigrationPhase.COMPLETED);
  const { FILLING, COMPLETED } = MigrationPhase;
  assert.deepEqual(phases, [FILLING, FILLING, FILLING, COMPLETED]);
  assert.equal(losses.length, 2);
});

test('an agent that comes back without the migration ends the watch with its answer', BUDGET, async (t) => {
  const first = await serve(t, (call) => {
    say(call, MigrationPhase.FILLING);
    return new Promise((resolve) => call.on('cancelled', resolve));
  });
  const lost = Promise.withResolvers<void>();
  const { ended } = follow(t, first.address, {
    onView: () => void first.shutdown(0),
    onLost: () => lost.resolve(),
  });
  const failed = assert.rejects(ended, { reason: ErrorReason.UNKNOWN_MIGRATION, message: 'no migration m' });
  await lost.promise;
  await serve(
    t,
    () => {
      throw new PagewakeError(ErrorReason.UNKNOWN_MIGRATION, 'no migration m');
    },
    first.address,
  );
  await failed;
});

test('an agent that stays away ends the watch after its budget, naming the agent', BUDGET, async (t) => {
  const { ended } = follow(t, '127.0.0.1:1', { lossBudgetMs: 100 });
  await assert.rejects(ended, /the destination agent at 127\.0\.0\.1:1 does not answer/);
});

test('an agent that takes the connection and never answers ends the watch after its budget too', BUDGET, async (t) => {
  const { address } = await serve(t, (call) => new Promise((resolve) => call.on('cancelled', resolve)));
  const { ended } = follow(t, address, { lossBudgetMs: 300 });
  await assert.rejects(ended, /the destination agent at .* does not answer: nothing came from it for 0\.3 s/);
});

test('where a refusal ends the watch, an agent that was never there is not tried again', BUDGET, async (t) => {
  const { ended, losses } = follow(t, '127.0.0.1:1', { refusalEnds: true });
  await assert.rejects(ended, /127\.0\.0\.1:1 does not answer .*ECONNREFUSED/);
  assert.deepEqual(losses, []);
});

test('a watch that is told to stop ends as cancelled', BUDGET, async (t) => {
  const { address } = await serve(t, (call) => {
    say(call, MigrationPhase.FILLING);
    return new Promise((resolve) => call.on('cancelled', resolve));
  });
  const stop = new AbortController();
  const { ended } = follow(t, address, { signal: stop.signal, onView: () => stop.abort() });
  await assert.rejects(ended, { reason: ErrorReason.CANCELLED });
});
