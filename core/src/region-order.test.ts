import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GuestLayout } from './layout.ts';
import { inOrder, orderByName, RegionNameError } from './region-order.ts';

const K4 = 4096;
const region = (address: number, pages: number, offset: number, file: number, name: string | undefined) => ({
  address,
  sizeBytes: pages * K4,
  offset,
  pageSizeBytes: K4,
  file,
  fileOffset: 0,
  name,
});
const layout = new GuestLayout([
  region(2 ** 30, 8, 0, 0, '/dev/shm/a'),
  region(2 ** 31, 2, 8 * K4, 1, '/dev/shm/b'),
  region(2 ** 29, 4, 10 * K4, 2, '/dev/shm/c'),
]);

test('regions take the order of the names, with offsets of that order and files of their own', () => {
  const ours = orderByName(layout, ['/dev/shm/c', '/dev/shm/a', '/dev/shm/b']);
  assert.deepEqual(
    ours.regions.map(({ name, offset, file, address, firstLedgerPage }) => [
      name,
      offset,
      file,
      address,
      firstLedgerPage,
    ]),
    [
      ['/dev/shm/c', 0, 2, 2 ** 29, 0],
      ['/dev/shm/a', 4 * K4, 0, 2 ** 30, 4],
      ['/dev/shm/b', 12 * K4, 1, 2 ** 31, 12],
    ],
  );
  const place = layout.atOffset(9 * K4);
  assert(place);
  assert.equal(inOrder(place, ours)?.region.name, '/dev/shm/b');
  assert.equal(inOrder(place, ours)?.page, 1);
});

test('without names the order is the VMM’s own', () => {
  assert.equal(orderByName(layout, []), layout);
});

const nameless = new GuestLayout([region(2 ** 30, 8, 0, 0, undefined)]);
const twins = new GuestLayout([region(2 ** 30, 8, 0, 0, 'a'), region(2 ** 31, 8, 8 * K4, 1, 'a')]);

for (const [law, given, names] of [
  ['one too few', layout, ['/dev/shm/a', '/dev/shm/b']],
  ['one too many', layout, ['/dev/shm/a', '/dev/shm/b', '/dev/shm/c', '/dev/shm/d']],
  ['another', layout, ['/dev/shm/a', '/dev/shm/b', '/dev/shm/x']],
  ['a name that no region has', nameless, ['a']],
  ['a name that two regions have', twins, ['a', 'b']],
] as const)
  test(`names that are not the VMM’s, each once, are refused with both lists: ${law}`, () => {
    assert.throws(
      () => orderByName(given, names),
      (error) =>
        error instanceof RegionNameError &&
        names.every((name) => error.message.includes(JSON.stringify(name))) &&
        error.message.includes(given === nameless ? 'one without a name' : JSON.stringify(given.regions[0]?.name)),
    );
  });
