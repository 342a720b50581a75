import assert from 'node:assert/strict';
import { test } from 'node:test';
import { content, frameOf, seen } from '../../test/pages.ts';
import { startRig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd') };

test('every request carries a trace context of its own, also where nothing is sampled', UFFD, async (t) => {
  const rig = await startRig(t);
  const source = rig.faultPeer();
  rig.lane.useStream(source);
  rig.lane.start();
  const touches = [rig.toucher.touch(0, 1), rig.toucher.touch(1, 2)];
  const asked = [await source.ask(0), await source.ask(1)];
  for (const { trace } of asked) {
    assert(trace);
    assert.equal(Buffer.from(trace.traceId).toString('hex'), '1'.repeat(32));
    assert.equal(trace.spanId.length, 8);
    assert.equal(trace.flags, 0);
  }
  assert.notDeepEqual(asked[0]?.trace?.spanId, asked[1]?.trace?.spanId);
  for (const { faultId, page } of asked) source.reply(faultId, frameOf(page, 1));
  assert.deepEqual(await Promise.all(touches), [seen(content(1)), seen(content(2))]);
});
