import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GuestLayout, orderByName } from '@pagewake/core';
import { HandshakeError } from '@pagewake/core/messages';
import { laneOrderOf, resolvedPage } from './vmm-orders.ts';

const K4 = 4096;
const M2 = 2 * 1024 * 1024;
const layout = new GuestLayout([
  { address: M2, sizeBytes: 2 * M2, offset: 0, fileOffset: 0, pageSizeBytes: M2 },
  { address: 64 * M2, sizeBytes: 8 * K4, offset: 2 * M2, fileOffset: 2 * M2, pageSizeBytes: K4 },
]);

const LAYOUTS = { offered: layout, layout };
const removed = (offset: number, len: number) => laneOrderOf({ type: 'removed', offset, len }, LAYOUTS);
const fault = (offset: number, traceparent?: string) =>
  laneOrderOf({ type: 'stage2_fault', id: 1, vcpu: 0, offset, flags: 0, traceparent }, LAYOUTS);
const refuses = (act: () => unknown, message: RegExp): void =>
  assert.throws(act, (error) => error instanceof HandshakeError && message.test(error.message), String(message));
const parentOf = (order: ReturnType<typeof fault>) => order.type === 'stage2' && order.faults[0]?.parent;

test('a stage-2 fault anywhere in a page is of that page, in its region', () => {
  for (const [offset, ledgerPage] of [
    [0, 0],
    [M2 - 1, 0],
    [M2, 1],
    [2 * M2, 2],
    [2 * M2 + 7 * K4 + 5, 9],
  ] as const)
    assert.deepEqual(fault(offset), { type: 'stage2', faults: [{ id: 1, ledgerPage, parent: undefined }] });
  refuses(() => fault(2 * M2 + 8 * K4), /^stage-2 fault 1: 4227072 is no page that the VMM handed over$/);
});

const seenByGuest = new GuestLayout([
  { address: M2, sizeBytes: 4 * K4, offset: 0, fileOffset: 0, pageSizeBytes: K4, gpaStart: 64 * M2 },
  { address: 2 * M2, sizeBytes: 4 * K4, offset: 4 * K4, fileOffset: 4 * K4, pageSizeBytes: K4, gpaStart: 0 },
]);

test('a stage-2 fault is named by its offset, by where the guest sees it, or by both where they agree', () => {
  const ask = (place: { readonly offset?: number; readonly gpa?: number }, offered = seenByGuest) =>
    laneOrderOf({ type: 'stage2_fault', id: 5, vcpu: 0, flags: 0, ...place }, { offered, layout: offered });
  const page2 = { type: 'stage2', faults: [{ id: 5, ledgerPage: 2, parent: undefined }] };
  for (const place of [
    { gpa: 64 * M2 + 2 * K4 + 9 },
    { offset: 2 * K4 },
    { offset: 2 * K4 + 1, gpa: 64 * M2 + 2 * K4 },
  ])
    assert.deepEqual(ask(place), page2);
  assert.deepEqual(ask({ gpa: K4 }), { type: 'stage2', faults: [{ id: 5, ledgerPage: 5, parent: undefined }] });
  refuses(() => ask({ offset: 2 * K4, gpa: 64 * M2 + 3 * K4 }), /offset 8192 and gpa 134230016 are not the same page/);
  refuses(() => ask({ offset: 0, gpa: 32 * M2 }), /offset 0 and gpa 67108864 are not the same page/);
  refuses(() => ask({ gpa: 4 * K4 }), /^stage-2 fault 5: gpa 16384 is no page/);
  refuses(() => ask({ gpa: 0 }, layout), /no offset, and the regions have no gpa_start/);
  // For people alone where nobody said what the guest sees.
  const order = ask({ offset: 2 * M2, gpa: 7 }, layout);
  assert.equal(order.type === 'stage2' && order.faults[0]?.ledgerPage, 2);
});

test('a batch is one order, each fault of its own page; one that names no page has the whole refused', () => {
  const faults = [
    { id: 3, vcpu: 1, offset: K4, flags: 0 },
    { id: 4, vcpu: 0, gpa: 0, flags: 16 },
  ];
  const both = { offered: seenByGuest, layout: seenByGuest };
  assert.deepEqual(laneOrderOf({ type: 'stage2_faults', faults }, both), {
    type: 'stage2',
    faults: [
      { id: 3, ledgerPage: 1, parent: undefined },
      { id: 4, ledgerPage: 4, parent: undefined },
    ],
  });
  const wrong = [...faults, { id: 9, vcpu: 0, offset: 8 * K4, flags: 0 }];
  refuses(() => laneOrderOf({ type: 'stage2_faults', faults: wrong }, both), /^stage-2 fault 9: /);
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
    refuses(() => removed(offset, len), /^removed: \d+ bytes at \d+ are no whole pages/);
});

test('a traceparent makes the fault a child; what is none is passed over, as the standard asks', () => {
  const trace = 'ab'.repeat(16);
  const span = 'cd'.repeat(8);
  assert.deepEqual(parentOf(fault(0, `00-${trace}-${span}-01`)), { traceId: trace, spanId: span, sampled: true });
  for (const bad of [
    '',
    'x',
    `01-${trace}-${span}-01`,
    `00-${'0'.repeat(32)}-${span}-01`,
    `00-${trace}-${'0'.repeat(16)}-01`,
  ])
    assert.equal(parentOf(fault(0, bad)), undefined, bad);
});

test('offsets on the channel are of the VMM’s own order of regions, whatever the order on the wire', () => {
  const region = (name: string, address: number, offset: number) => ({
    ...{ name, address, offset, sizeBytes: 4 * K4, pageSizeBytes: K4, fileOffset: 0 },
    file: address / M2,
  });
  const offered = new GuestLayout([region('a', M2, 0), region('b', 2 * M2, 4 * K4)]);
  const layouts = { offered, layout: orderByName(offered, ['b', 'a']) };
  const fault = laneOrderOf({ type: 'stage2_fault', id: 1, vcpu: 0, offset: 5 * K4, flags: 0 }, layouts);
  assert.deepEqual(fault, { type: 'stage2', faults: [{ id: 1, ledgerPage: 1, parent: undefined }] });
  assert.deepEqual(resolvedPage({ id: 1, ledgerPage: 1 }, layouts), { id: 1, offset: 5 * K4, len: K4 });
  const removed = (offset: number, len: number) => laneOrderOf({ type: 'removed', offset, len }, layouts);
  assert.deepEqual(removed(K4, 2 * K4), { type: 'removed', first: 5, count: 2, offset: K4, len: 2 * K4 });
  // Neighbours there, strangers here.
  refuses(() => removed(3 * K4, 2 * K4), /no whole pages/);
});
