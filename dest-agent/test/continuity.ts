/** A migration's record in a state folder of the test's own. */
import type { TestContext } from 'node:test';
import { createLogger, StateFolder } from '@pagewake/agent-kit';
import { Continuity } from '../src/session/continuity.ts';
import { RecordKeeper, type MigrationRecord } from '../src/session/record.ts';
import { temporaryDir } from './toucher.ts';

export const RECORD: MigrationRecord = {
  vmId: 'demo',
  sourceAddress: '127.0.0.1:1',
  generation: 3,
  tokenHex: '07'.repeat(32),
  destinationId: 'd'.repeat(32),
  vmmSocket: '/run/pagewake/demo.sock',
  regionNames: [],
  startedAtMs: 1,
  trace: { traceId: '1'.repeat(32), spanId: '2'.repeat(16), sampled: false },
};

export function newContinuity(t: TestContext): Continuity {
  const log = createLogger('test', 'silent');
  const folder = new StateFolder(temporaryDir(t), { option: '--state-dir', lock: () => () => undefined, log });
  return new Continuity(new RecordKeeper(folder, 'm', RECORD), false, log);
}
