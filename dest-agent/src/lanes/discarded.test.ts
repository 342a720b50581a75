import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { test } from 'node:test';
import { MemoryFile } from '@pagewake/native';
import { content, PAGE_BYTES, seen, zeros } from '../../test/pages.ts';
import { honestFault, startRig } from '../../test/rig.ts';
import { lacking } from '../../test/toucher.ts';
import { BUDGET } from '../../test/wait.ts';

const UFFD = { ...BUDGET, skip: lacking('userfaultfd by syscall', 'MISSING on memfd', 'ZEROPAGE on memfd') };

for (const memory of ['memfd', 'anonymous'] as const)
  test(
    `${memory}: a page that its VMM threw away without a REMOVE event reads as zeros, with nothing asked for and an alarm`,
    UFFD,
    async (t) => {
      const rig = await startRig(t, { memory, vcpus: [1] });
      const source = rig.faultPeer();
      source.answers = honestFault;
      rig.lane.useStream(source);
      rig.lane.start();
      for (const worker of [0, 1]) {
        const page = 3 + worker;
        assert.deepEqual(await rig.toucher.touch(worker, page), seen(content(page)));
        await rig.toucher.remove(worker, page, 1);
        assert.deepEqual(await rig.toucher.touch(worker, page), seen(zeros));
        assert.deepEqual(await rig.toucher.touch(worker, page), seen(zeros));
      }
      assert.equal(source.asked.length, 2);
      assert.equal(rig.counters.get('total'), 4, 'a fault each, and no wake loop');
      assert.match((await rig.posted('alarm')).message, /page 3 .*discarded by the VMM without a REMOVE event/);
    },
  );

test('a hole that is punched through the file is a page thrown away like any other', UFFD, async (t) => {
  const rig = await startRig(t, {});
  const source = rig.faultPeer();
  source.answers = honestFault;
  rig.lane.useStream(source);
  rig.lane.start();
  assert.deepEqual(await rig.toucher.touch(0, 3), seen(content(3)));
  const { uffd, files } = rig.descriptors();
  const file = MemoryFile.adopt(files[0] ?? -1);
  closeSync(uffd);
  assert.equal(file.punch(3 * PAGE_BYTES, PAGE_BYTES).kind, 'done');
  file.close();
  assert.deepEqual(await rig.toucher.touch(0, 3), seen(zeros));
  assert.equal(source.asked.length, 1);
});
