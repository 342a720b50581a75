import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { MigrationSchema } from '@pagewake/proto';
import { EventQueue, type MigrationEvent } from './events.ts';

const BUDGET = { timeout: 20_000 };
const progress = (migrationId: string): MigrationEvent => ({
  type: 'progress',
  migration: create(MigrationSchema, { migrationId }),
});
const label = (event: MigrationEvent): string =>
  event.type === 'progress' ? `progress ${event.migration.migrationId}` : event.type;

test('a reader gets every event in order, but of progress only the latest', BUDGET, async () => {
  const queue = new EventQueue();
  queue.push(progress('1'));
  queue.push(progress('2'));
  queue.push({ type: 'recovered' });
  queue.push(progress('3'));
  queue.push(progress('4'));
  queue.end();
  const seen: string[] = [];
  for await (const event of queue) seen.push(label(event));
  assert.deepEqual(seen, ['progress 2', 'recovered', 'progress 4']);
});

test('a reader that waits is woken by the next event, and by the failure at the end', BUDGET, async () => {
  const queue = new EventQueue();
  const reader = queue[Symbol.asyncIterator]();
  const first = reader.next();
  queue.push({ type: 'warning', message: 'a' });
  assert.equal((await first).value?.type, 'warning');
  const second = reader.next();
  queue.fail(new Error('the end'));
  await assert.rejects(second, /the end/);
});
