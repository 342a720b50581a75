import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GuestLayout, orderByName } from '@pagewake/core';
import { laneOrderOf, resolvedAnswer } from './vmm-orders.ts';

const K4 = 4096;
const M2 = 2 * 1024 * 1024;
const layout = new GuestLayout([
  { address: M2, sizeBytes: 2 * M2, offset: 0, fileOffset: 0, pageSizeBytes: M2 },
  { address: 64 * M2, sizeBytes: 8 * K4, offset: 2 * M2, fileOffset: 2 * M2, pageSizeBytes: K4 },
]);

const removed = (offset: number, len: number) =>
  laneOrderOf({ type: 'removed', offset, len }, { offered: layout, layout });
const fault = (offset: number, traceparent?: string) =>
  laneOrderOf({ type: 'stage2_fault', id: 1, vcpu: 0, offset, flags: 0, traceparent }, { offered: layout, layout });

test('a stage-2 fault anywhere in a page is of that page, in its region', () => {
  for (const [offset, ledgerPage] of [
    [0, 0],
    [M2 - 1, 0],
    [M2, 1],
    [2 * M2, 2],
    [2 * M2 + 7 * K4 + 5, 9],
  ] as const)
    assert.deepEqual(fault(offset), { type: 'stage2', id: 1, ledgerPage, parent: undefined });
  assert.equal(fault(2 * M2 + 8 * K4), undefined);
});

test('a removed range is of whole pages, and may cross from one region into the next', () => {
  assert.deepEqual(removed(2 * M2 + K4, 2 * K4), {
    type: 'removed',
    first: 3,
    count: 2,
    offset: 2 * M2 + K4,
    len: 2 * K4,
  });
  assert.deepEqual(removed(M2, M2 + K4), { type: 'removed', first: 1, count: 2, offset: M2, len: M2 + K4 });
});

test('half a page is not given back, wherever the half is', () => {
  for (const [offset, len] of [
    [0, K4],
    [K4, 2 * M2 - K4],
    [2 * M2, 100],
    [2 * M2 + 8, K4 - 8],
    [2 * M2 + 7 * K4, 2 * K4],
    [2 * M2 + 8 * K4, K4],
  ] as const)
    assert.equal(removed(offset, len), undefined, `${String(offset)} ${String(len)}`);
});

test('a traceparent makes the fault a child; what is none is passed over, as the standard asks', () => {
  const trace = 'ab'.repeat(16);
  const span = 'cd'.repeat(8);
  const order = fault(0, `00-${trace}-${span}-01`);
  assert.deepEqual(order?.type === 'stage2' && order.parent, { traceId: trace, spanId: span, sampled: true });
  for (const bad of [
    '',
    'x',
    `01-${trace}-${span}-01`,
    `00-${'0'.repeat(32)}-${span}-01`,
    `00-${trace}-${'0'.repeat(16)}-01`,
  ]) {
    const order = fault(0, bad);
    assert.equal(order?.type === 'stage2' && order.parent, undefined, bad);
  }
});

test('offsets on the channel are of the VMM’s own order of regions, whatever the order on the wire', () => {
  const region = (name: string, address: number, offset: number) => ({
    ...{ name, address, offset, sizeBytes: 4 * K4, pageSizeBytes: K4, fileOffset: 0 },
    file: address / M2,
  });
  const offered = new GuestLayout([region('a', M2, 0), region('b', 2 * M2, 4 * K4)]);
  const layouts = { offered, layout: orderByName(offered, ['b', 'a']) };
  const fault = laneOrderOf({ type: 'stage2_fault', id: 1, vcpu: 0, offset: 5 * K4, flags: 0 }, layouts);
  assert.deepEqual(fault, { type: 'stage2', id: 1, ledgerPage: 1, parent: undefined });
  assert.deepEqual(resolvedAnswer(1, 1, layouts), { type: 'resolved', id: 1, offset: 5 * K4, len: K4 });
  const removed = (offset: number, len: number) => laneOrderOf({ type: 'removed', offset, len }, layouts);
  assert.deepEqual(removed(K4, 2 * K4), { type: 'removed', first: 5, count: 2, offset: K4, len: 2 * K4 });
  // Neighbours there, strangers here.
  assert.equal(removed(3 * K4, 2 * K4), undefined);
});
