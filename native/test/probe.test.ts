import assert from 'node:assert/strict';
import { test } from 'node:test';
import { probe } from '../ts/index.ts';
import { openDescriptors } from './support.ts';

test('the probe answers for every capability, says what it did, and leaves nothing behind', (t) => {
  probe();
  const before = openDescriptors();
  const rows = probe();
  assert.equal(openDescriptors(), before);
  assert.equal(new Set(rows.map((row) => row.name)).size, rows.length);
  for (const row of rows) {
    assert.notEqual(row.detail, '', row.name);
    t.diagnostic(`${row.available ? 'yes' : 'no '} ${row.name}: ${row.detail}`);
  }
  assert.deepEqual(
    rows.map((row) => row.name),
    [
      'userfaultfd by syscall',
      'userfaultfd by /dev/userfaultfd',
      'faults of the kernel (stage 2)',
      'MISSING on memfd',
      'MINOR on memfd',
      'UFFDIO_CONTINUE',
      'ZEROPAGE on memfd',
      'UFFDIO_POISON',
      'EVENT_REMOVE',
      'memfd SEEK_DATA',
      'hugetlb 2 MiB',
      'process_vm_readv',
      'PAGEMAP_SCAN',
      '/dev/kvm',
      'guest_memfd',
      'guest_memfd mmap',
      'userfaultfd on guest_memfd',
      'userfaultfd missing and minor on guest_memfd',
      'write() to guest_memfd',
      'KVM_MEM_USERFAULT',
      'KVM userfault on guest_memfd',
      'KVM userfault on memfd',
    ],
  );
});
