import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import { createLogger, startTelemetry } from '@pagewake/agent-kit';
import { LoopSpin } from '@pagewake/native';
import { VmRegistry } from '../../domain/registry.ts';
import { nativeCodec } from '../codec.ts';
import { frameMaker } from '../grpc/page-service.ts';
import { ServeTracer } from '../serve-tracer.ts';
import { rehearseFaults } from './rehearsal.ts';
import { SlabPool } from './slab.ts';

const descriptors = (): number => readdirSync('/proc/self/fd').length;

test('a rehearsal answers every fault of its own; no VM is known for it, and nothing is left open', async (t) => {
  const registry = new VmRegistry();
  const telemetry = await startTelemetry({ serviceName: 'test', log: createLogger('test', 'silent') });
  const bugs: unknown[] = [];
  const spin = new LoopSpin(1000);
  t.after(() => spin.close());
  const before = descriptors();
  const answered = rehearseFaults({
    registry,
    makerOf: (vm) => frameMaker(vm, nativeCodec),
    tracer: new ServeTracer(telemetry),
    slabs: new SlabPool(256 * 1024, 8),
    compress: false,
    spin,
    onBug: (error) => bugs.push(error),
  });
  assert.deepEqual([answered, bugs, registry.list()], [1000, [], []]);
  assert.equal(descriptors(), before);
});
