import assert from 'node:assert/strict';
import { test } from 'node:test';
import { probeCapabilities } from './adapters/probe.ts';
import { tiersHere, type TierHere } from './tiers.ts';

const STOCK = ['faults of the kernel (stage 2)', 'MISSING on memfd', 'guest_memfd mmap'];
const PATCHED = [
  ...STOCK,
  'userfaultfd missing and minor on guest_memfd',
  'write() to guest_memfd',
  'KVM userfault on guest_memfd',
  'KVM userfault on memfd',
];

const here = (names: readonly string[]): readonly TierHere[] =>
  tiersHere(PATCHED.map((name) => ({ name, available: names.includes(name) })));
const modes = (names: readonly string[]): readonly string[] => here(names).map(({ tier, mode }) => `${tier}: ${mode}`);

test('a kernel that has all of it: post-copy in every tier but the one that traps nothing', () => {
  assert.deepEqual(modes(PATCHED), [
    'guest-memfd-full: post-copy',
    'guest-memfd-eager: eager',
    'memfd-userfault: post-copy',
    'memfd: post-copy',
    'anonymous: post-copy',
  ]);
  assert.ok(here(PATCHED).every(({ available, missing }) => available && missing.length === 0));
});

test('a stock kernel: what a tier lacks is named by the rows of the probe', () => {
  const [full, eager, userfault] = here(STOCK);
  assert.deepEqual(full, {
    tier: 'guest-memfd-full',
    available: false,
    mode: 'none',
    missing: ['userfaultfd missing and minor on guest_memfd', 'write() to guest_memfd', 'KVM userfault on guest_memfd'],
  });
  assert.deepEqual([eager?.available, eager?.mode], [true, 'eager']);
  assert.deepEqual(userfault?.missing, ['KVM userfault on memfd']);
});

test('one capability less than all is a tier less, never half of one', () => {
  for (const lost of PATCHED) {
    const names = PATCHED.filter((name) => name !== lost);
    for (const { available, mode, missing } of here(names)) {
      assert.equal(available, mode !== 'none');
      if (mode === 'post-copy') assert.deepEqual(missing, []);
      if (missing.length > 0) assert.deepEqual(missing, [lost]);
    }
  }
});

test('without a userfaultfd a memfd is filled before the guest runs, and anonymous memory not at all', () => {
  assert.deepEqual(modes(['guest_memfd mmap']), [
    'guest-memfd-full: none',
    'guest-memfd-eager: eager',
    'memfd-userfault: none',
    'memfd: eager',
    'anonymous: none',
  ]);
});

test('what a tier needs are rows that the probe has', async () => {
  const rows = new Set((await probeCapabilities()).map(({ name }) => name));
  for (const name of tiersHere([]).flatMap(({ missing }) => missing)) assert.ok(rows.has(name), name);
});
