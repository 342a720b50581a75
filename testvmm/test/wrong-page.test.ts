import assert from 'node:assert/strict';
import test from 'node:test';

import { temporaryFolder, Vmm } from './vmm.ts';

// vCPUs wait most of the time, so that a pause hardly ever falls into the page that is poked. Region layout, in pages: workload 0.., I/O from 4096, zero fill from 4608, then what nobody writes.
const ARGS = [
  '--ram',
  '32M',
  '--workload',
  '16M',
  '--io-pages',
  '512',
  '--io-rate',
  '0',
  '--zero-fill',
  '1M',
  '--vcpu-rate',
  '40000',
];

const offsets = [
  { what: 'a vCPU', page: 1234, byte: 4095, finder: /^(vcpu0|vcpu1)$/ },
  { what: 'the I/O thread', page: 4096 + 77, byte: 8, finder: /^io$/ },
  { what: 'whoever reads zeros', page: 4608 + 3, byte: 0, finder: /^(vcpu0|vcpu1|io)$/ },
] as const;

for (const kvm of [[], ['--no-kvm']]) {
  const where = kvm.length === 0 ? 'KVM' : 'plain threads';
  for (const { what, page, byte, finder } of offsets) {
    test(
      `a flipped bit is found by ${what} on ${where}, which ends the program with address, expected, found`,
      { timeout: 20_000 },
      async (t) => {
        const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', [...ARGS, '--vcpus', '2', ...kvm]);
        if (vmm === null) return;
        await vmm.untilFilled();
        // Poked while it is paused: a page that is being rewritten at that moment would not show it.
        await vmm.ok('pause');
        await vmm.ok(`poke ${page * 4096 + byte}`);
        await vmm.command('resume').catch(() => {}); // the guest may find it before the answer is out
        const { code, stderr } = await vmm.exit;
        assert.equal(code, 1);
        const wrong = vmm.events.find((e) => e.event === 'wrong_page');
        assert.match(wrong?.finder ?? '', finder);
        const word = page * 4096 + (byte & ~7);
        assert.equal(wrong?.offset, word);
        assert.equal(wrong?.gpa, `0x${(2 ** 30 + word).toString(16)}`);
        const difference = BigInt(wrong?.expected ?? 0) ^ BigInt(wrong?.found ?? 0);
        assert.equal(difference, 1n << BigInt((byte & 7) * 8), 'exactly the flipped bit');
        assert.match(
          stderr,
          /wrong page found by \w+ at GPA 0x[0-9a-f]+ .*expected 0x[0-9a-f]{16} .*found 0x[0-9a-f]{16}/,
        );
      },
    );
  }
}

for (const { what, page } of [...offsets, { what: 'nobody (a page never written)', page: 8191 }]) {
  test(`verify finds a flipped bit in a page of ${what}, answers and exits 1`, { timeout: 20_000 }, async (t) => {
    const vmm = await Vmm.start(t, await temporaryFolder(t), 'source', [...ARGS, '--no-kvm', '--vcpus', '2']);
    if (vmm === null) return;
    await vmm.untilFilled();
    await vmm.ok('pause');
    assert.equal((await vmm.ok('verify')).wrong, 0);
    await vmm.ok(`poke ${page * 4096}`);
    assert.equal((await vmm.ok('verify')).wrong, 1);
    assert.equal((await vmm.exit).code, 1);
    assert.equal(vmm.events.find((e) => e.event === 'wrong_page')?.finder, 'verify');
  });
}
