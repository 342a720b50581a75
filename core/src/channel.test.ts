import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import { LineSplitter, parseVmmMessage } from './channel.ts';
import { HandshakeError } from './checked.ts';

const refuses = (line: string, message: RegExp): void =>
  assert.throws(
    () => parseVmmMessage(line),
    (error) => error instanceof HandshakeError && message.test(error.message),
    `${line} ${String(message)}`,
  );

test('a stage-2 fault has an id, a vCPU and an offset; flags and traceparent may be absent', () => {
  assert.deepEqual(parseVmmMessage('{"type":"stage2_fault","id":7,"vcpu":0,"offset":4096}'), {
    type: 'stage2_fault',
    id: 7,
    vcpu: 0,
    offset: 4096,
    flags: 0,
  });
  const whole = { type: 'stage2_fault', id: 0, vcpu: 3, offset: 0, flags: 16, traceparent: '00-ab-cd-01' };
  assert.deepEqual(parseVmmMessage(JSON.stringify(whole)), whole);
});

test('a removed range has an offset and a length', () => {
  const removed = { type: 'removed', offset: 8192, len: 4096 };
  assert.deepEqual(parseVmmMessage(JSON.stringify(removed)), removed);
});

test('what is no JSON, no object, of no known type or lacks a field is refused with its name', () => {
  refuses('{"type":', /not JSON: "\{\\"type\\":"/);
  refuses('[]', /VMM channel/);
  refuses('null', /VMM channel/);
  refuses('{"type":"done"}', /VMM channel: type/);
  refuses('{"id":1}', /VMM channel: type/);
  refuses('{"type":"removed","offset":0}', /VMM channel: len/);
  refuses('{"type":"removed","offset":0,"len":0}', /VMM channel: len/);
  refuses('{"type":"removed","offset":-1,"len":4096}', /VMM channel: offset/);
  refuses('{"type":"stage2_fault","id":1.5,"vcpu":0,"offset":0}', /VMM channel: id/);
  refuses('{"type":"stage2_fault","id":1,"vcpu":0,"offset":1e300}', /VMM channel: offset/);
});

test('a long line of nonsense is quoted, and cut short', () => {
  assert.throws(
    () => parseVmmMessage('x'.repeat(60_000)),
    (error) => error instanceof HandshakeError && error.message.length < 200,
  );
});

test('property: wherever the stream is cut, the same lines come out', () => {
  const line = fc.string({ maxLength: 20 }).filter((s) => !s.includes('\n') && s.trim() !== '');
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.integer({ min: 1, max: 10 })), (lines, cuts) => {
      const text = lines.map((l) => `${l}\n`).join('');
      const splitter = new LineSplitter(100);
      const out: string[] = [];
      let at = 0;
      for (const cut of cuts) {
        out.push(...splitter.push(text.slice(at, at + cut)));
        at += cut;
      }
      out.push(...splitter.push(text.slice(at)));
      assert.deepEqual(out, lines);
    }),
  );
});

test('empty lines are no messages, and a line that has not ended is kept', () => {
  const splitter = new LineSplitter(10);
  assert.deepEqual(splitter.push('\n \n a'), []);
  assert.deepEqual(splitter.push('b'), []);
  assert.deepEqual(splitter.push('\n'), [' ab']);
});

test('a line of exactly the limit passes; one byte more is refused, whether or not it has ended', () => {
  assert.deepEqual(new LineSplitter(4).push('abcd\n'), ['abcd']);
  for (const text of ['abcde', 'abcde\n', 'ab\nabcde\n'])
    assert.throws(
      () => new LineSplitter(4).push(text),
      (error) => error instanceof HandshakeError && /longer than 4 bytes/.test(error.message),
      JSON.stringify(text),
    );
  const splitter = new LineSplitter(4);
  splitter.push('abc');
  assert.throws(() => splitter.push('de'), HandshakeError);
});
