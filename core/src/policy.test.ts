import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  callAfterWrite,
  callForData,
  callForPrefetch,
  callForZero,
  type FaultOrigin,
  type MemoryTraits,
} from './policy.ts';

const memory = (traits: Partial<MemoryTraits>): MemoryTraits => ({
  file: 'shared',
  minor: false,
  huge: false,
  exactWrite: true,
  writable: true,
  bitmap: false,
  ...traits,
});

const MEMFD = memory({});
const MINOR = memory({ minor: true });
const ANONYMOUS = memory({ file: 'none' });
const HUGE = memory({ huge: true, writable: false });
const HUGE_ANONYMOUS = memory({ file: 'none', huge: true });
const THP = memory({ exactWrite: false });
const GUEST_MEMFD = memory({ file: 'guest-memfd' });
const FULL = memory({ file: 'guest-memfd', minor: true, bitmap: true });
const MAINLINE_GUEST_MEMFD = memory({ file: 'guest-memfd', writable: false });

const ROWS: readonly (readonly [
  name: string,
  traits: MemoryTraits,
  byOrigin: Readonly<Record<FaultOrigin, readonly [data: string, zero: string]>>,
  prefetch: string,
])[] = [
  [
    'a memfd',
    MEMFD,
    { 'user-space': ['copy', 'zeropage'], 'stage2-trap': ['write', 'zeropage'], 'stage2-exit': ['write', 'write'] },
    'write',
  ],
  [
    'a memfd registered for minor faults: a write alone would cost the vCPU a second event',
    MINOR,
    { 'user-space': ['copy', 'zeropage'], 'stage2-trap': ['copy', 'zeropage'], 'stage2-exit': ['write', 'write'] },
    'write',
  ],
  [
    'anonymous memory: there is no file to write to',
    ANONYMOUS,
    { 'user-space': ['copy', 'zeropage'], 'stage2-trap': ['copy', 'zeropage'], 'stage2-exit': ['copy', 'copy'] },
    'copy',
  ],
  [
    'hugetlbfs: neither ZEROPAGE nor write()',
    HUGE,
    { 'user-space': ['copy', 'copy'], 'stage2-trap': ['copy', 'copy'], 'stage2-exit': ['copy', 'copy'] },
    'copy',
  ],
  [
    'hugetlb pages without a file',
    HUGE_ANONYMOUS,
    { 'user-space': ['copy', 'copy'], 'stage2-trap': ['copy', 'copy'], 'stage2-exit': ['copy', 'copy'] },
    'copy',
  ],
  [
    'shmem with huge pages always: a write() would fill neighbours',
    THP,
    { 'user-space': ['copy', 'zeropage'], 'stage2-trap': ['copy', 'zeropage'], 'stage2-exit': ['copy', 'copy'] },
    'copy',
  ],
  [
    'a guest_memfd that can be trapped',
    GUEST_MEMFD,
    { 'user-space': ['copy', 'zeropage'], 'stage2-trap': ['write', 'zeropage'], 'stage2-exit': ['write', 'write'] },
    'write',
  ],
  [
    'a guest_memfd registered for missing and minor faults, with a bitmap',
    FULL,
    { 'user-space': ['copy', 'zeropage'], 'stage2-trap': ['copy', 'zeropage'], 'stage2-exit': ['write', 'write'] },
    'write',
  ],
  [
    'a guest_memfd without write()',
    MAINLINE_GUEST_MEMFD,
    { 'user-space': ['copy', 'zeropage'], 'stage2-trap': ['copy', 'zeropage'], 'stage2-exit': ['copy', 'copy'] },
    'copy',
  ],
];

for (const [name, traits, byOrigin, prefetch] of ROWS) {
  for (const [origin, [data, zero]] of Object.entries(byOrigin) as [FaultOrigin, readonly [string, string]][])
    test(`${name}: a ${origin} fault is resolved by ${data}, of zeros by ${zero}`, () => {
      assert.equal(callForData(origin, traits), data);
      assert.equal(callForZero(origin, traits), zero);
    });
  test(`${name}: prefetch of trapped memory is by ${prefetch}`, () => {
    assert.equal(callForPrefetch(traits, true), prefetch);
  });
}

test('prefetch of memory that nothing traps writes into the file, or stores through a mapping where the file cannot be written', () => {
  assert.equal(callForPrefetch(MEMFD, false), 'write');
  // A larger folio does no harm where every page is filled before anybody looks.
  assert.equal(callForPrefetch(THP, false), 'write');
  assert.equal(callForPrefetch(GUEST_MEMFD, false), 'write');
  assert.equal(callForPrefetch(MAINLINE_GUEST_MEMFD, false), 'store');
  assert.equal(callForPrefetch(HUGE, false), 'store');
});

test('no call that needs a file is chosen without one, and none that hugetlbfs lacks for huge pages', () => {
  for (const file of ['none', 'shared', 'guest-memfd'] as const)
    for (const minor of [false, true])
      for (const huge of [false, true])
        for (const exactWrite of [false, true]) {
          const traits = memory({ file, minor, huge, exactWrite });
          for (const origin of ['user-space', 'stage2-trap', 'stage2-exit'] as const) {
            const calls = [callForData(origin, traits), callForZero(origin, traits), callForPrefetch(traits, true)];
            if (file === 'none' || !exactWrite) assert(!calls.includes('write'), JSON.stringify(traits));
            if (huge) assert.deepEqual(new Set(calls), new Set(['copy']), JSON.stringify(traits));
          }
        }
});

test('who sleeps on a page that was written is continued where MINOR is registered; a vCPU that exited is only answered', () => {
  assert.equal(callAfterWrite('user-space', FULL), 'continue');
  assert.equal(callAfterWrite('stage2-trap', FULL), 'continue');
  assert.equal(callAfterWrite('stage2-exit', FULL), 'write');
  assert.equal(callAfterWrite('user-space', MEMFD), 'write');
});
