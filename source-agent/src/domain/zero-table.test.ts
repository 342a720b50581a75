import assert from 'node:assert/strict';
import { test } from 'node:test';
import { array, assert as check, boolean, property } from 'fast-check';
import { ZeroTable, zeroRunList } from './zero-table.ts';

test('byte pairs become page runs relative to their region', () => {
  const list = zeroRunList(Float64Array.of(8192, 4096, 20480, 8192), 8192, 4096);
  assert.deepEqual([...list.firstPages], [0, 3]);
  assert.deepEqual([...list.pageCounts], [1, 2]);
});

test('for any pattern of pages the table says of each page what it is, and how far that holds', () => {
  check(
    property(array(boolean(), { minLength: 1, maxLength: 64 }), (zero) => {
      const firstPages: number[] = [];
      const pageCounts: number[] = [];
      for (const [page, is] of zero.entries()) {
        if (!is) continue;
        if (page > 0 && zero[page - 1] === true) pageCounts.push((pageCounts.pop() ?? 0) + 1);
        else {
          firstPages.push(page);
          pageCounts.push(1);
        }
      }
      const list = { firstPages: Uint32Array.from(firstPages), pageCounts: Uint32Array.from(pageCounts) };
      const table = new ZeroTable([{ pageSizeBytes: 4096, pageCount: zero.length }], [list]);
      assert.equal(table.zeroPages, zero.filter(Boolean).length);
      assert.equal(table.dataPages, zero.length - table.zeroPages);
      for (const [page, is] of zero.entries()) {
        let endPage = page;
        while (endPage < zero.length && zero[endPage] === is) endPage++;
        assert.deepEqual(table.at(0, page), { zero: is, endPage });
      }
    }),
  );
});
