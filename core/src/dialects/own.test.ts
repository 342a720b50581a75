import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { MAX_BATCH, parseVmmMessage, type ResolvedPage } from '../channel.ts';
import { HandshakeError } from '../checked.ts';
import { OwnCodec } from './own.ts';

const K4 = 4096;
const pagesFrom = (first: number, count: number): ResolvedPage[] =>
  Array.from({ length: count }, (_, i) => ({ id: first + i, offset: (first + i) * K4, len: K4 }));
const batchOf = (count: number): string =>
  JSON.stringify({
    type: 'stage2_faults',
    faults: Array.from({ length: count }, (_, id) => ({
      ...{ id, vcpu: 0, offset: id * K4, gpa: 2 ** 45 + id * K4, flags: 16 },
      traceparent: `00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`,
    })),
  });
const linesOf = (text: string): unknown[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): unknown => JSON.parse(line));

test('a VMM that asks for one page at a time is answered so, however many are there', () => {
  const codec = new OwnCodec();
  codec.read('{"type":"stage2_fault","id":0,"vcpu":0,"offset":0}\n');
  assert.deepEqual(linesOf(codec.write({ type: 'all_resolved', pages: pagesFrom(0, 2) })), [
    { type: 'resolved', id: 0, offset: 0, len: K4 },
    { type: 'resolved', id: 1, offset: K4, len: K4 },
  ]);
});

test('a VMM that has asked for several at a time is answered so, at most 1024 in a message', () => {
  const codec = new OwnCodec();
  codec.read(`${batchOf(2)}\n`);
  const told = linesOf(codec.write({ type: 'all_resolved', pages: pagesFrom(0, MAX_BATCH + 1) }));
  assert.deepEqual(told, [
    { type: 'all_resolved', pages: pagesFrom(0, MAX_BATCH) },
    { type: 'all_resolved', pages: pagesFrom(MAX_BATCH, 1) },
  ]);
});

test('the largest batch fits in a line', () => {
  const { messages } = new OwnCodec().read(`${batchOf(MAX_BATCH)}\n`);
  assert.equal(messages[0]?.type === 'stage2_faults' && messages[0].faults.length, MAX_BATCH);
});

test('a batch has at least one fault and at most 1024, and the fault that is wrong is named', () => {
  for (const [line, message] of [
    ['{"type":"stage2_faults","faults":[]}', /faults/],
    [batchOf(MAX_BATCH + 1), /faults/],
    ['{"type":"stage2_faults"}', /faults/],
    ['{"type":"stage2_faults","faults":[{"id":1,"vcpu":0,"offset":0},{"id":2,"vcpu":0}]}', /faults\.1: neither/],
    ['{"type":"stage2_faults","faults":[{"id":1,"vcpu":0,"offset":-1}]}', /faults\.0\.offset/],
    ['{"type":"stage2_fault","id":1,"vcpu":0}', /neither offset nor gpa/],
    ['{"type":"stage2_fault","id":1,"vcpu":0,"gpa":1.5}', /gpa/],
  ] as const)
    assert.throws(
      () => parseVmmMessage(line),
      (error) => error instanceof HandshakeError && message.test(error.message),
      line.slice(0, 80),
    );
  assert.equal(parseVmmMessage('{"type":"stage2_fault","id":1,"vcpu":0,"gpa":4096}').type, 'stage2_fault');
});

test('property: wherever the stream is cut, the same messages come out', () => {
  const fault = fc.record({ id: fc.nat(), vcpu: fc.nat(), offset: fc.nat(), gpa: fc.nat(), flags: fc.nat() });
  const message = fc.oneof(
    fault.map((f) => ({ type: 'stage2_fault' as const, ...f })),
    fc.array(fault, { minLength: 1, maxLength: 5 }).map((faults) => ({ type: 'stage2_faults' as const, faults })),
    fc.record({ type: fc.constant('removed' as const), offset: fc.nat(), len: fc.integer({ min: 1 }) }),
  );
  fc.assert(
    fc.property(fc.array(message), fc.array(fc.integer({ min: 1, max: 50 })), (messages, cuts) => {
      const text = messages.map((m) => `${JSON.stringify(m)}\n`).join('');
      const codec = new OwnCodec();
      const heard: unknown[] = [];
      let at = 0;
      for (const cut of [...cuts, text.length]) {
        heard.push(...codec.read(text.slice(at, at + cut)).messages);
        at += cut;
      }
      assert.deepEqual(heard, JSON.parse(JSON.stringify(messages)));
    }),
  );
});
