import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { GuestLayout, LayoutError, type RegionInput } from './layout.ts';

const K4 = 4096;
const M2 = 2 * 1024 * 1024;
const BASE = 0x7f00_0000_0000;

/** Regions that follow each other in the image and lie apart at the VMM's addresses, as a VMM with a hole below 4 GiB has them. */
function inputs(shapes: readonly (readonly [pageSizeBytes: number, pages: number])[]): RegionInput[] {
  let offset = 0;
  return shapes.map(([pageSizeBytes, pages], index) => {
    const input = {
      address: BASE + index * 2 ** 36,
      sizeBytes: pages * pageSizeBytes,
      offset,
      fileOffset: offset,
      pageSizeBytes,
    };
    offset += input.sizeBytes;
    return input;
  });
}

const good = (): RegionInput => ({ address: BASE, sizeBytes: 4 * K4, offset: 0, fileOffset: 0, pageSizeBytes: K4 });

for (const [pageSizeBytes, name] of [
  [K4, '4 KiB'],
  [M2, '2 MiB'],
] as const) {
  test(`with pages of ${name} the first, a middle and the last page are found by address, offset and ledger page`, () => {
    const layout = new GuestLayout(
      inputs([
        [pageSizeBytes, 5],
        [pageSizeBytes, 7],
      ]),
    );
    assert.equal(layout.pageCount, 12);
    assert.equal(layout.sizeBytes, 12 * pageSizeBytes);
    for (const [region, page, ledgerPage] of [
      [0, 0, 0],
      [0, 2, 2],
      [0, 4, 4],
      [1, 0, 5],
      [1, 3, 8],
      [1, 6, 11],
    ] as const) {
      const r = layout.regions[region];
      assert(r !== undefined);
      const first = page * pageSizeBytes;
      for (const inPage of [0, 1, pageSizeBytes - 1]) {
        assert.deepEqual(layout.atAddress(r.address + first + inPage), { region: r, page });
        assert.deepEqual(layout.atOffset(r.offset + first + inPage), { region: r, page });
      }
      assert.deepEqual(layout.atLedgerPage(ledgerPage), { region: r, page });
      assert.equal(r.firstLedgerPage + page, ledgerPage);
    }
  });
}

test('what lies before, between and behind the regions is no page', () => {
  const layout = new GuestLayout(
    inputs([
      [K4, 2],
      [K4, 2],
    ]),
  );
  for (const address of [0, BASE - 1, BASE + 2 * K4, BASE + 2 ** 36 - 1, BASE + 2 ** 36 + 2 * K4])
    assert.equal(layout.atAddress(address), undefined, String(address));
  for (const offset of [-1, 4 * K4, Number.MAX_SAFE_INTEGER]) assert.equal(layout.atOffset(offset), undefined);
  for (const page of [-1, 4, 2 ** 32]) assert.equal(layout.atLedgerPage(page), undefined);
});

test('addresses may come in any order, and regions may touch', () => {
  const layout = new GuestLayout([
    { ...good(), address: BASE + 4 * K4 },
    { ...good(), offset: 4 * K4, fileOffset: 4 * K4 },
  ]);
  assert.equal(layout.atAddress(BASE)?.region.index, 1);
  assert.equal(layout.atAddress(BASE + 4 * K4)?.region.index, 0);
});

const BAD: readonly (readonly [law: string, regions: readonly RegionInput[], message: RegExp])[] = [
  ['no regions', [], /^no regions$/],
  ['a size of zero', [{ ...good(), sizeBytes: 0 }], /^region 0: size is 0$/],
  [
    'a page size of 8 KiB',
    [{ ...good(), pageSizeBytes: 8192 }],
    /^region 0: page size 8192; 4096 or 2097152 is possible$/,
  ],
  ['a page size of zero', [{ ...good(), pageSizeBytes: 0 }], /^region 0: page size 0;/],
  ['a page size of 1 GiB', [{ ...good(), pageSizeBytes: 2 ** 30 }], /^region 0: page size 1073741824;/],
  [
    'an address off the page',
    [{ ...good(), address: BASE + 1 }],
    /^region 0: base_host_virt_addr \d+ is not a multiple/,
  ],
  ['a size off the page', [{ ...good(), sizeBytes: K4 + 512 }], /^region 0: size 4608 is not a multiple/],
  ['an offset off the page', [{ ...good(), offset: 8 }], /^region 0: offset 8 is not a multiple/],
  ['a file offset off the page', [{ ...good(), fileOffset: 8 }], /^region 0: file_offset 8 is not a multiple/],
  [
    'an address of 4 KiB under pages of 2 MiB',
    [{ address: BASE + K4, sizeBytes: M2, offset: 0, fileOffset: 0, pageSizeBytes: M2 }],
    /^region 0: base_host_virt_addr \d+ is not a multiple of its page size 2097152$/,
  ],
  ['a negative address', [{ ...good(), address: -K4 }], /^region 0: base_host_virt_addr is -4096, not a whole number/],
  ['a fraction of a size', [{ ...good(), sizeBytes: 0.5 }], /^region 0: size is 0\.5, not a whole number/],
  ['a size beyond 2^53', [{ ...good(), sizeBytes: 2 ** 54 }], /^region 0: size is \d+, not a whole number/],
  [
    'an end beyond the address space',
    [{ ...good(), address: 2 ** 53 - 2 * K4, sizeBytes: 4 * K4 }],
    /^region 0: its end lies beyond the address space$/,
  ],
  ['a first region that is not at 0', [{ ...good(), offset: K4 }], /^region 0: offset is 4096; .* 0 was expected$/],
  [
    'a gap in the image',
    [good(), { ...good(), address: BASE + M2, offset: 5 * K4, fileOffset: 5 * K4 }],
    /^region 1: offset is 20480; .* 16384 was expected$/,
  ],
  [
    'an overlap in the image',
    [good(), { ...good(), address: BASE + M2, offset: 3 * K4, fileOffset: 4 * K4 }],
    /^region 1: offset is 12288; .* 16384 was expected$/,
  ],
  [
    'addresses that overlap',
    [good(), { ...good(), address: BASE + 3 * K4, offset: 4 * K4, fileOffset: 4 * K4 }],
    /^regions 0 and 1 overlap in their addresses$/,
  ],
  [
    'a region inside another, far from it in the list',
    [
      good(),
      { ...good(), address: BASE + M2, offset: 4 * K4, fileOffset: 4 * K4 },
      { ...good(), address: BASE + K4, sizeBytes: K4, offset: 8 * K4, fileOffset: 8 * K4 },
    ],
    /^regions 0 and 2 overlap in their addresses$/,
  ],
  [
    'places in the memory file that overlap',
    [good(), { ...good(), address: BASE + M2, offset: 4 * K4, fileOffset: K4 }],
    /^regions 0 and 1 overlap in their places in the memory file$/,
  ],
  [
    'more pages than the wire can number',
    [{ ...good(), address: 0, sizeBytes: 2 ** 44 }],
    /^4294967296 pages; at most 4294967295$/,
  ],
];

for (const [law, regions, message] of BAD)
  test(`${law}: refused, with the region and the number that is wrong`, () => {
    assert.throws(
      () => new GuestLayout(regions),
      (error) => error instanceof LayoutError && message.test(error.message),
      String(message),
    );
  });

test('more regions than a VMM can mean are refused before they are looked at', () => {
  assert.throws(() => new GuestLayout(Array.from({ length: 1025 }, good)), /^LayoutError: 1025 regions; at most 1024$/);
});

const shape = fc.tuple(fc.constantFrom(K4, M2), fc.integer({ min: 1, max: 1000 }));

test('property: address, offset and ledger page of a page lead back to it, and neighbours to neighbours', () => {
  fc.assert(
    fc.property(fc.array(shape, { minLength: 1, maxLength: 8 }), fc.nat(), fc.nat(), (shapes, pick, inPage) => {
      // Huge pages first: what follows 4 KiB pages need not be aligned to 2 MiB.
      const layout = new GuestLayout(inputs(shapes.toSorted((a, b) => b[0] - a[0])));
      const ledgerPage = pick % layout.pageCount;
      const place = layout.atLedgerPage(ledgerPage);
      assert(place !== undefined);
      const { region, page } = place;
      const within = page * region.pageSizeBytes + (inPage % region.pageSizeBytes);
      assert.deepEqual(layout.atAddress(region.address + within), place);
      assert.deepEqual(layout.atOffset(region.offset + within), place);
      assert.equal(region.firstLedgerPage + page, ledgerPage);
      const next = layout.atOffset(region.offset + (page + 1) * region.pageSizeBytes);
      assert.deepEqual(next, layout.atLedgerPage(ledgerPage + 1));
    }),
  );
});

test('a mismatch names the region and both sides, and the same shapes do not differ', () => {
  const layout = new GuestLayout(
    inputs([
      [M2, 3],
      [K4, 2],
    ]),
  );
  const shapes = layout.regions.map(({ pageSizeBytes, pageCount }) => ({ pageSizeBytes, pageCount }));
  assert.equal(layout.mismatch(shapes), undefined);
  assert.equal(layout.mismatch(shapes.slice(0, 1)), '1 regions there, 2 here');
  assert.equal(
    layout.mismatch([shapes[0] ?? assert.fail(), { pageSizeBytes: K4, pageCount: 3 }]),
    'region 1: 3 pages of 4096 bytes there, 2 of 4096 here',
  );
  assert.equal(
    layout.mismatch([{ pageSizeBytes: K4, pageCount: 3 }, shapes[1] ?? assert.fail()]),
    'region 0: 3 pages of 4096 bytes there, 3 of 2097152 here',
  );
});
