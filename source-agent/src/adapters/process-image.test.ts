import assert from 'node:assert/strict';
import { test } from 'node:test';
import { firstGap, parseMaps } from './process-image.ts';

const MAPS = `00400000-00402000 r--p 00000000 08:01 123 /bin/vmm
7f0000000000-7f0000100000 rw-s 00000000 00:01 99 /memfd:ram (deleted)
7f0000100000-7f0000180000 rw-p 00000000 00:00 0
7f0000180000-7f0000181000 ---p 00000000 00:00 0
7f0000190000-7f00001a0000 rw-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
`;

test('a range is covered exactly if readable mappings follow each other over all of it', () => {
  const maps = parseMaps(MAPS);
  assert.equal(maps.length, 6);
  const base = 0x7f0000000000;
  assert.equal(firstGap(maps, base, base + 0x100000), undefined);
  assert.equal(firstGap(maps, base + 0x1000, base + 0x180000), undefined, 'over two mappings');
  assert.equal(firstGap(maps, base, base + 0x181000), base + 0x180000, 'into a guard page');
  assert.equal(firstGap(maps, base + 0x188000, base + 0x191000), base + 0x188000, 'from a hole');
  assert.equal(firstGap(maps, base + 0x190000, base + 0x1b0000), base + 0x1a0000, 'out at the end');
  assert.equal(firstGap([], base, base + 1), base);
});
