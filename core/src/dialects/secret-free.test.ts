import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as fc from 'fast-check';
import type { VmmMessage } from '../channel.ts';
import { HandshakeError } from '../checked.ts';
import { GuestLayout } from '../layout.ts';
import { SecretFreeCodec } from './secret-free.ts';

const K4 = 4096;
const PAGES = 64;
const layout = new GuestLayout([
  { address: K4, sizeBytes: PAGES * K4, offset: 0, fileOffset: 0, pageSizeBytes: K4, gpaStart: 0 },
]);

const codec = (): SecretFreeCodec => new SecretFreeCodec(layout);
const request = (change: Record<string, unknown> = {}): string =>
  JSON.stringify({ vcpu: 0, offset: K4, flags: 16, token: null, ...change });
const refuses = (act: () => unknown, message: RegExp): void =>
  assert.throws(act, (error) => error instanceof HandshakeError && message.test(error.message), String(message));
const faultsIn = (messages: readonly VmmMessage[]) =>
  messages.flatMap((message) => (message.type === 'stage2_faults' ? message.faults : []));
/** The answers, whatever stands between them: nothing. */
const answersIn = (text: string): unknown[] =>
  text === '' ? [] : (JSON.parse(`[${text.replaceAll('}{', '},{')}]`) as unknown[]);

// ── The word behind the array ─────────────────────────────────────────────────────────────────────────────────────

test('the handshake is whole with no_exitless_apf and not before; what follows is no part of it', () => {
  const word = 'no_exitless_apf';
  for (let length = 0; length < word.length; length++)
    assert.equal(codec().opening(word.slice(0, length)), undefined, word.slice(0, length));
  assert.equal(codec().opening(word), word.length);
  assert.equal(codec().opening(`${word}${request()}`), word.length);
  assert.equal(codec().opening(`\n ${word}`), word.length + 2);
});

test('exitless asynchronous page faults are refused as soon as it is clear that they are meant, with what to do', () => {
  for (let length = 0; length < 'exitless_apf:'.length; length++)
    assert.equal(codec().opening('exitless_apf:'.slice(0, length)), undefined);
  for (const text of ['exitless_apf:', 'exitless_apf:2', ' exitless_apf:12{'])
    refuses(() => codec().opening(text), /exitless asynchronous page faults.*without an apf\.socket/);
});

test('anything else behind the array is refused, and quoted', () => {
  for (const text of ['exit_', 'no_exitless_apF', request(), '\x1c\0\0\0', 'x'.repeat(5000)])
    refuses(
      () => codec().opening(text),
      /^a secret-free Firecracker says no_exitless_apf behind its regions; this one/,
    );
});

// ── Fault messages ────────────────────────────────────────────────────────────────────────────────────────────────

test('each fault message is answered once, with its flags and its token, in the order in which pages come', () => {
  const own = codec();
  const text = `${request({ vcpu: 1, token: 77 })}${request({ offset: 2 * K4, flags: 0, is_new: [1] })}`;
  const { messages, answer } = own.read(text);
  assert.equal(answer, '');
  const [first, second] = faultsIn(messages);
  assert(first && second);
  assert.deepEqual([first.vcpu, first.offset, first.flags], [1, K4, 16]);
  const pages = [second, first].map(({ id, offset }) => ({ id, offset: offset ?? -1, len: K4 }));
  const said = own.write({ type: 'all_resolved', pages });
  assert.deepEqual(answersIn(said), [
    { vcpu: 0, offset: 2 * K4, len: K4, flags: 0, token: null, zero: false },
    { vcpu: 1, offset: K4, len: K4, flags: 16, token: 77, zero: false },
  ]);
  assert.equal(own.write({ type: 'all_resolved', pages }), '');
});

test('the same fault twice is answered twice', () => {
  const own = codec();
  const faults = faultsIn(own.read(request() + request()).messages);
  assert.equal(new Set(faults.map(({ id }) => id)).size, 2);
  const said = own.write({ type: 'all_resolved', pages: faults.map(({ id }) => ({ id, offset: K4, len: K4 })) });
  assert.equal(answersIn(said).length, 2);
});

test('there is no word for anything but an answer', () => {
  const own = codec();
  own.read(request());
  for (const message of [
    { type: 'held' },
    { type: 'ready' },
    { type: 'removed', offset: 0, len: K4 },
    { type: 'failed', reason: 'CANCELLED', message: '' },
  ] as const)
    assert.equal(own.write(message), '');
});

test('once every page is there whoever waits is answered, and so is whoever asks later, at once', () => {
  const own = codec();
  const [fault] = faultsIn(own.read(request({ offset: 3 * K4 + 5 })).messages);
  assert.equal(own.answersLate, false);
  assert.deepEqual(answersIn(own.write({ type: 'done' })), [
    { vcpu: 0, offset: 3 * K4, len: K4, flags: 16, token: null, zero: false },
  ]);
  // The page's own answer may still be on its way here.
  assert.equal(own.write({ type: 'all_resolved', pages: [{ id: fault?.id ?? -1, offset: 3 * K4, len: K4 }] }), '');
  assert.equal(own.answersLate, true);
  const { messages, answer } = own.read(request({ vcpu: 7 }) + request().slice(0, 9));
  assert.deepEqual(messages, []);
  assert.deepEqual(answersIn(answer), [{ vcpu: 7, offset: K4, len: K4, flags: 16, token: null, zero: false }]);
  assert.equal(answersIn(own.read(request().slice(9)).answer).length, 1);
});

test('a framed body is refused for what it is, also where its length begins like an object', () => {
  for (const text of ['\x1c\0\0\0\x01\x02', '{\0\0\0\x01', '\ufffd\0\0\0'])
    refuses(() => codec().read(text), /frames its fault messages.*bitcode.*sends them as JSON/);
});

const BAD: readonly (readonly [law: string, text: string, message: RegExp])[] = [
  ['text behind an object', `${request()}what?`, /^no fault message: it begins with "what\?"/],
  ['an array', `${request()}[]`, /^no fault message/],
  ['an object that is no JSON', '{"vcpu":}', /^a fault message is not JSON/],
  ['no vcpu', request({ vcpu: undefined }), /^vcpu: /],
  ['a negative offset', request({ offset: -K4 }), /^offset: /],
  ['flags as text', request({ flags: '16' }), /^flags: /],
  ['flags that a number cannot hold', '{"vcpu":0,"offset":0,"flags":18446744073709551615,"token":null}', /^flags: /],
  ['no token', request({ token: undefined }), /^token: /],
  ['a token that is an object', request({ token: {} }), /^token: /],
  [
    'an offset outside the memory',
    request({ offset: PAGES * K4 }),
    /offset 262144 is no page that the VMM handed over/,
  ],
  ['an object without an end', `{"vcpu":0,"x":"${'y'.repeat(5000)}`, /longer than 4096 bytes/],
  ['an object that is too long', request({ more: 'y'.repeat(5000) }), /longer than 4096 bytes/],
];

for (const [law, text, message] of BAD)
  test(`refused, with what is wrong: ${law}`, () => refuses(() => codec().read(text), message));

test('a VMM that asks and asks, and never waits, is refused in the end', () => {
  const own = codec();
  const many = request().repeat(1024);
  for (let sent = 0; sent < 64; sent++) own.read(many);
  refuses(() => own.read(request()), /65536 fault messages wait for an answer/);
});

test('property: wherever the stream is cut, the same faults come out, and one answer each', () => {
  const fault = fc.record({
    vcpu: fc.nat(),
    offset: fc.nat({ max: PAGES - 1 }).map((page) => page * K4),
    flags: fc.nat(),
    token: fc.option(fc.nat()),
    more: fc.string(),
  });
  const space = fc.constantFrom('', '', ' ', '\n');
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fault, space)),
      fc.array(fc.integer({ min: 1, max: 50 })),
      fc.boolean(),
      (faults, cuts, whole) => {
        const text = faults.map(([f, between]) => JSON.stringify(f) + between).join('');
        const own = codec();
        if (whole) own.write({ type: 'done' });
        const heard: VmmMessage[] = [];
        let said = '';
        let at = 0;
        for (const cut of [...cuts, text.length]) {
          const { messages, answer } = own.read(text.slice(at, at + cut));
          heard.push(...messages);
          said += answer;
          at += cut;
        }
        const pages = faultsIn(heard).map(({ id, offset = 0 }) => ({ id, offset, len: K4 }));
        said += own.write({ type: 'all_resolved', pages });
        assert.deepEqual(
          answersIn(said),
          faults.map(([{ vcpu, offset, flags, token }]) => ({ vcpu, offset, len: K4, flags, token, zero: false })),
        );
      },
    ),
  );
});
