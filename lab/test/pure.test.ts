import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { configArguments, notTaken, parseKernelConfig } from '../config.ts';
import { LineCutter, parseConsoleLine } from '../console.ts';
import { commonPrefix, kernelKey } from '../key.ts';
import { quoted, scriptOf } from '../script.ts';
import { summary } from '../summary.ts';

const PATCH = { name: '0001-a.patch', text: 'a' };
const BASE = { version: '7.3.4-1', config: 'KVM\n', patches: [PATCH] };

test('a kernel is known by its source, its configuration and every patch, by name and by text', () => {
  const others = [
    { ...BASE, version: '7.3.5-1' },
    { ...BASE, config: 'KVM\nBUG\n' },
    { ...BASE, patches: [] },
    { ...BASE, patches: [{ ...PATCH, text: 'b' }] },
    { ...BASE, patches: [{ ...PATCH, name: '0002-a.patch' }] },
    { ...BASE, patches: [PATCH, PATCH] },
  ];
  const keys = [BASE, ...others].map(kernelKey);
  assert.equal(new Set(keys).size, keys.length);
  assert.equal(kernelKey({ ...BASE, patches: [{ ...PATCH }] }), keys[0]);
});

test('a byte that moves from one ingredient to the next makes another kernel', () => {
  const key = (version: string, config: string): string => kernelKey({ version, config, patches: [] });
  assert.notEqual(key('7.3', '4'), key('7.', '34'));
});

test('patches stay in a tree up to the first that differs', () => {
  const [a, b, c] = ['a', 'b', 'c'].map((text) => ({ name: `${text}.patch`, text }));
  assert.ok(a && b && c);
  assert.equal(commonPrefix([a, b, c], [a, b, c]), 3);
  assert.equal(commonPrefix([a, b, c], [a, { ...b, text: 'x' }, c]), 1);
  assert.equal(commonPrefix([a, b], [a, b, c]), 2);
  assert.equal(commonPrefix([a, b, c], [a]), 1);
  assert.equal(commonPrefix([], [a]), 0);
});

test('the configuration of the lab can be read, and asks for nothing twice', () => {
  const config = parseKernelConfig(readFileSync(new URL('../kernel/config', import.meta.url), 'utf8'));
  for (const needed of ['KVM_AMD', 'USERFAULTFD', 'BUG', 'VETH', 'OVERLAY_FS'])
    assert.ok(config.on.includes(needed), needed);
  assert.deepEqual(config.off, ['MODULES']);
  assert.deepEqual(configArguments({ on: ['A', 'B'], off: ['C'] }), ['-e', 'A', '-e', 'B', '-d', 'C']);
  assert.throws(() => parseKernelConfig('KVM\nKVM'), /KVM is there twice/);
  assert.throws(() => parseKernelConfig('KVM=y'), /config:1/);
});

test('an option that the kernel did not take is named, one that came back too', () => {
  const dotConfig = 'CONFIG_KVM=y\nCONFIG_MODULES=y\n# CONFIG_VETH is not set\nCONFIG_KVM_AMD=m\n';
  const config = { on: ['KVM', 'VETH', 'KVM_AMD'], off: ['MODULES'] };
  assert.deepEqual(notTaken(config, dotConfig), ['VETH', 'KVM_AMD', '-MODULES']);
});

test('lines are the same however the console cuts them', () => {
  fc.assert(
    fc.property(fc.array(fc.string()), fc.array(fc.nat(20)), (words, cuts) => {
      const text = words.join('\n');
      const cutter = new LineCutter();
      const lines: string[] = [];
      let at = 0;
      for (const length of cuts) {
        lines.push(...cutter.push(text.slice(at, at + length)));
        at += length;
      }
      lines.push(...cutter.push(text.slice(at)), ...cutter.flush());
      const due = text.split('\n');
      assert.deepEqual(lines, due.at(-1) === '' ? due.slice(0, -1) : due);
    }),
  );
});

test('the lab’s own marks are told from what a program prints', () => {
  assert.deepEqual(parseConsoleLine('@lab up\r'), { kind: 'up' });
  assert.deepEqual(parseConsoleLine('@lab ended 3 tainted 512\r'), { kind: 'ended', code: 3, tainted: 512 });
  assert.deepEqual(parseConsoleLine('@lab died /new: No such device'), { kind: 'died', why: '/new: No such device' });
  assert.deepEqual(parseConsoleLine('it says @lab up'), { kind: 'output', text: 'it says @lab up' });
  assert.deepEqual(parseConsoleLine('\u001b[2J\u001b[1;1Hbooting'), { kind: 'output', text: 'booting' });
});

test('what the kernel complains about is trouble, what it merely says is not', () => {
  const kinds = (text: string): unknown => {
    const line = parseConsoleLine(text);
    return line.kind === 'kernel' ? line.trouble : line.kind;
  };
  assert.equal(kinds('[    3.141592] Kernel panic - not syncing: Attempted to kill init!'), true);
  assert.equal(
    kinds('[   12.000001] WARNING: CPU: 1 PID: 7 at virt/kvm/guest_memfd.c:120 kvm_gmem_get_folio+0x1/0x2'),
    true,
  );
  assert.equal(kinds('[    0.500000] BUG: unable to handle page fault for address: 0000'), true);
  assert.equal(kinds('[    0.500000] kvm: SMP vm created on host with unstable TSC'), false);
  assert.equal(kinds('WARNING: a program’s own'), 'output');
});

test('the script keeps a path with a quote in it, and does not hide a checkout below /tmp', () => {
  assert.equal(quoted(`a'b`), `'a'\\''b'`);
  const options = { command: 'true', home: '/root', quick: false };
  assert.match(scriptOf({ ...options, root: '/home/me/pagewake' }), /mount -t tmpfs/);
  assert.doesNotMatch(scriptOf({ ...options, root: '/tmp/pagewake' }), /mount -t tmpfs/);
  assert.match(scriptOf({ ...options, root: '/x', quick: true }), /PAGEWAKE_LAB_QUICK=1/);
  assert.ok(scriptOf({ ...options, root: '/x' }).endsWith('\ntrue\n'));
});

test('the summary has every run, and below it why something failed or was skipped', () => {
  const text = summary([
    { stage: 'kernel', run: 'nested', seconds: 28.1, verdict: { passed: 94, failed: 0, skipped: [], notes: [] } },
    { stage: 'native', run: 'tests', seconds: 9, verdict: { passed: 1, failed: 1, skipped: ['x # y'], notes: ['z'] } },
  ]);
  assert.equal(
    text,
    [
      'STAGE   RUN     PASSED  FAILED  SKIPPED  SECONDS',
      'kernel  nested      94       0        0       28',
      'native  tests        1       1        1        9',
      '',
      'native, tests: z',
      'native, tests: skipped: x # y',
    ].join('\n'),
  );
});
