import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { temporaryFolder, Vmm } from './vmm.ts';

const SMALL = ['--ram', '48M', '--workload', '16M', '--io-pages', '512', '--zero-fill', '1M', '--balloon-area', '1M'];
const IMAGE_PAGES = (48 << 20) / 4096;

const cases: readonly { readonly name: string; readonly args: readonly string[] }[] = [
  { name: 'memfd, 1 vCPU', args: [] },
  { name: 'memfd, 4 vCPUs, 2 regions', args: ['--vcpus', '4', '--regions', '2'] },
  { name: 'anonymous memory, 4 vCPUs', args: ['--memory', 'anon', '--vcpus', '4'] },
  { name: 'anonymous memory, 1 vCPU, 2 regions', args: ['--memory', 'anon', '--regions', '2'] },
  { name: 'guest_memfd, 2 vCPUs, 2 regions', args: ['--memory', 'guest_memfd', '--vcpus', '2', '--regions', '2'] },
  { name: 'plain threads, 4 of them, 8 regions', args: ['--no-kvm', '--vcpus', '4', '--regions', '8'] },
  { name: 'plain threads, anonymous memory', args: ['--no-kvm', '--memory', 'anon'] },
  { name: 'sequential, 2 vCPUs, 2 regions', args: ['--order', 'sequential', '--vcpus', '2', '--regions', '2'] },
  { name: 'text pattern', args: ['--pattern', 'text'] },
  { name: 'zero-heavy pattern', args: ['--pattern', 'zero-heavy', '--vcpus', '2'] },
  { name: 'no I/O thread, paced vCPUs', args: ['--io-pages', '0', '--vcpu-rate', '20000', '--vcpus', '2'] },
];

for (const { name, args } of cases) {
  test(
    `every page is right whenever the guest is stopped, and it goes on after: ${name}`,
    { timeout: 30_000 },
    async (t) => {
      const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', [...SMALL, ...args]);
      if (vmm === null) return;
      // Before the filling is done, in its middle, and many times in the passes after it: where a vCPU stands is different each time.
      for (let round = 0; round < 8; round++) {
        const result = await vmm.ok('verify');
        assert.equal(result.wrong, 0);
        assert.equal(result.pages, IMAGE_PAGES);
        if (round === 3) await vmm.untilFilled();
      }
      await vmm.ok('pause');
      const before = await vmm.ok('stats');
      await sleep(20);
      assert.deepEqual(
        (await vmm.ok('stats')).vcpus?.map((v) => v.work),
        before.vcpus?.map((v) => v.work),
        'a paused guest does no work',
      );
      await vmm.ok('resume');
      const worked = async () =>
        (await vmm.ok('stats')).vcpus?.every((v, i) => v.work > (before.vcpus?.[i]?.work ?? 0));
      while ((await worked()) !== true) await sleep(5);
      const after = await vmm.ok('stats');
      assert.equal(after.wrong, 0);
      assert.equal(after.kvm, !args.includes('--no-kvm'));
      vmm.terminate();
      assert.equal((await vmm.exit).code, 0);
    },
  );
}

test('a guest on plain threads says so in its first line', { timeout: 10_000 }, async (t) => {
  const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', [...SMALL, '--no-kvm']);
  assert.deepEqual({ event: vmm?.events[0]?.event, kvm: vmm?.events[0]?.kvm }, { event: 'started', kvm: false });
});

test(
  '`memory` names regions that follow each other in the image and leave a hole in guest addresses',
  { timeout: 10_000 },
  async (t) => {
    const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', [...SMALL, '--regions', '3']);
    if (vmm === null) return;
    const memory = await vmm.ok('memory');
    assert.match(memory.path ?? '', new RegExp(`^/proc/${memory.pid}/fd/\\d+$`));
    assert.equal(memory.regions?.length, 3);
    memory.regions.forEach((region, i) => {
      assert.equal(region.size, 16 << 20);
      assert.equal(region.offset, i * (16 << 20));
      assert.equal(region.file_offset, region.offset);
      assert.equal(region.gpa, 2 ** 30 + i * 2 ** 31);
    });
  },
);

test('heartbeats come from every worker', { timeout: 10_000 }, async (t) => {
  const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', [...SMALL, '--vcpus', '2']);
  if (vmm === null) return;
  for (;;) {
    const { vcpus, io } = await vmm.ok('stats');
    if ([...(vcpus ?? []), io].every((worker) => (worker?.heartbeats ?? 0) >= 3)) break;
    await sleep(20);
  }
});

test('a command that makes no sense is answered with what is wrong', { timeout: 10_000 }, async (t) => {
  const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', [...SMALL]);
  if (vmm === null) return;
  const cases: readonly (readonly [string, RegExp])[] = [
    ['', /unknown command/],
    ['frobnicate', /unknown command "frobnicate"/],
    ['save', /save PATH/],
    ['save /tmp/never', /pause/],
    ['load a b', /only a destination/],
    ['poke x', /whole number/],
    ['poke 99999999999', /outside the image/],
  ];
  for (const [command, error] of cases) {
    const reply = await vmm.command(command);
    assert.equal(reply.ok, false, command);
    assert.match(reply.error ?? '', error);
  }
});
