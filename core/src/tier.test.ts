import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { DescriptorName, VmmOffer } from './offer.ts';
import { GuestLayout } from './layout.ts';
import { chooseTier, type Mode, type Tier, type TierChoice } from './tier.ts';

const layout = new GuestLayout([{ address: 4096, sizeBytes: 4096, offset: 0, fileOffset: 0, pageSizeBytes: 4096 }]);

const WRITABLE = { writable: true };

type Registered = 'nothing' | 'missing' | 'minor' | 'both';

function offer(
  descriptors: readonly DescriptorName[],
  registered: Registered,
  dialect: VmmOffer['dialect'] = 'pagewake/1',
): VmmOffer {
  return {
    dialect,
    vmId: undefined,
    content: 'empty',
    givenBack: [],
    layout,
    descriptors,
    missing: registered === 'missing' || registered === 'both',
    minor: registered === 'minor' || registered === 'both',
    vcpuThreads: [],
  };
}

const firecracker = offer(['uffd'], 'missing', 'firecracker');
const memfdTrapped = offer(['uffd', 'memfd'], 'missing');
const memfdBoth = offer(['uffd', 'memfd'], 'both');
const memfdMinor = offer(['uffd', 'memfd'], 'minor');
const memfdIdle = offer(['uffd', 'memfd'], 'nothing');
const memfd = offer(['memfd'], 'nothing');
const anonymous = offer(['uffd'], 'missing');
const anonymousIdle = offer(['uffd'], 'nothing');
const nothing = offer([], 'nothing');
const guestMemfd = offer(['guest_memfd'], 'nothing');
const guestMemfdTrapped = offer(['uffd', 'guest_memfd'], 'both');
const guestMemfdFull = offer(['uffd', 'guest_memfd', 'bitmap'], 'both');
const secretFree = offer(['uffd', 'guest_memfd', 'bitmap'], 'both', 'firecracker-secret-free');
const memfdUserfault = offer(['uffd', 'memfd', 'bitmap'], 'missing');
const memfdBitmap = offer(['memfd', 'bitmap'], 'nothing');
const guestMemfdIdle = offer(['uffd', 'guest_memfd', 'bitmap'], 'nothing');

type Expected = readonly [tier: Tier, mode: Mode, trapped: boolean] | 'not-trappable' | 'unsupported';

const ROWS: readonly (readonly [name: string, offer: VmmOffer, byMode: Readonly<Record<'auto' | Mode, Expected>>])[] = [
  [
    'firecracker',
    firecracker,
    { auto: ['anonymous', 'post-copy', true], 'post-copy': ['anonymous', 'post-copy', true], eager: 'unsupported' },
  ],
  [
    'a memfd registered for missing',
    memfdTrapped,
    { auto: ['memfd', 'post-copy', true], 'post-copy': ['memfd', 'post-copy', true], eager: ['memfd', 'eager', true] },
  ],
  [
    'a memfd registered for both',
    memfdBoth,
    { auto: ['memfd', 'post-copy', true], 'post-copy': ['memfd', 'post-copy', true], eager: ['memfd', 'eager', true] },
  ],
  [
    'a memfd registered for minor alone',
    memfdMinor,
    { auto: 'unsupported', 'post-copy': 'unsupported', eager: 'unsupported' },
  ],
  [
    'a memfd with an idle uffd',
    memfdIdle,
    { auto: ['memfd', 'eager', false], 'post-copy': 'not-trappable', eager: ['memfd', 'eager', false] },
  ],
  [
    'a memfd alone',
    memfd,
    { auto: ['memfd', 'eager', false], 'post-copy': 'not-trappable', eager: ['memfd', 'eager', false] },
  ],
  [
    'anonymous memory',
    anonymous,
    {
      auto: ['anonymous', 'post-copy', true],
      'post-copy': ['anonymous', 'post-copy', true],
      eager: ['anonymous', 'eager', true],
    },
  ],
  [
    'anonymous memory, not registered',
    anonymousIdle,
    { auto: 'unsupported', 'post-copy': 'unsupported', eager: 'unsupported' },
  ],
  ['no descriptor', nothing, { auto: 'unsupported', 'post-copy': 'unsupported', eager: 'unsupported' }],
  [
    'a guest_memfd',
    guestMemfd,
    {
      auto: ['guest-memfd-eager', 'eager', false],
      'post-copy': 'not-trappable',
      eager: ['guest-memfd-eager', 'eager', false],
    },
  ],
  [
    'a guest_memfd with an idle uffd',
    guestMemfdIdle,
    {
      auto: ['guest-memfd-eager', 'eager', false],
      'post-copy': 'not-trappable',
      eager: ['guest-memfd-eager', 'eager', false],
    },
  ],
  [
    'a guest_memfd that is registered, with a bitmap and write()',
    guestMemfdFull,
    {
      auto: ['guest-memfd-full', 'post-copy', true],
      'post-copy': ['guest-memfd-full', 'post-copy', true],
      eager: ['guest-memfd-full', 'eager', true],
    },
  ],
  [
    'the same of a secret-free Firecracker',
    secretFree,
    {
      auto: ['guest-memfd-full', 'post-copy', true],
      'post-copy': ['guest-memfd-full', 'post-copy', true],
      eager: 'unsupported',
    },
  ],
  [
    'a guest_memfd that is registered, without a bitmap',
    guestMemfdTrapped,
    {
      auto: ['guest-memfd-eager', 'eager', true],
      'post-copy': 'not-trappable',
      eager: ['guest-memfd-eager', 'eager', true],
    },
  ],
  [
    'a memfd registered for missing, with a bitmap',
    memfdUserfault,
    {
      auto: ['memfd-userfault', 'post-copy', true],
      'post-copy': ['memfd-userfault', 'post-copy', true],
      eager: ['memfd-userfault', 'eager', true],
    },
  ],
  [
    'a memfd with a bitmap and no userfaultfd',
    memfdBitmap,
    { auto: ['memfd', 'eager', false], 'post-copy': 'not-trappable', eager: ['memfd', 'eager', false] },
  ],
];

const summary = (choice: TierChoice): Expected =>
  choice.kind === 'chosen' ? [choice.tier, choice.mode, choice.trapped] : choice.kind;

for (const [name, given, byMode] of ROWS)
  for (const [wanted, expected] of Object.entries(byMode) as ['auto' | Mode, Expected][])
    test(`${name}, ${wanted}: ${typeof expected === 'string' ? expected : expected.join(', ')}`, () => {
      const choice = chooseTier(given, wanted === 'auto' ? undefined : wanted, WRITABLE);
      assert.deepEqual(summary(choice), expected);
      const text = choice.kind === 'chosen' ? choice.reason : choice.message;
      assert.notEqual(text, '');
      if (choice.kind === 'not-trappable') {
        assert(choice.missing.length > 0);
        for (const what of choice.missing) assert(choice.message.includes(what), what);
      }
    });

test('a guest_memfd that cannot be trapped is refused with everything that a kernel would need', () => {
  const choice = chooseTier(guestMemfd, 'post-copy', WRITABLE);
  assert(choice.kind === 'not-trappable');
  assert.match(choice.message, /userfaultfd registration of a guest_memfd mapping/);
  assert.match(choice.message, /write\(\) to a guest_memfd/);
  assert.match(choice.message, /KVM userfault exits/);
  assert.match(choice.message, /Eager migration is possible/);
});

test('a guest_memfd that misses one thing is refused with just that', () => {
  for (const [given, writable, missing] of [
    [guestMemfdTrapped, true, ['a bitmap']],
    [guestMemfdFull, false, ['write() to a guest_memfd']],
    [guestMemfdIdle, true, ['a userfaultfd that is registered for missing pages']],
    [secretFree, false, ['write() to a guest_memfd']],
  ] as const) {
    const choice = chooseTier(given, given === secretFree ? undefined : 'post-copy', { writable });
    assert(choice.kind === 'not-trappable');
    assert.deepEqual(choice.missing, missing);
  }
});
