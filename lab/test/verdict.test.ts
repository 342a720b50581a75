import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseOptions } from '../options.ts';
import { checksVerdict, linesVerdict, testsVerdict } from '../verdict.ts';

test('checks that came to their end are counted, and what failed is named', () => {
  const output = ['a:', '  ok one', '  FAIL two', '       -1 File exists, not that', '1 passed, 1 failed'];
  assert.deepEqual(checksVerdict(output, 1), { passed: 1, failed: 1, skipped: [], notes: ['two'] });
  assert.equal(checksVerdict(['  ok one', '1 passed, 0 failed'], 0).failed, 0);
});

test('checks that ended in the middle have failed, whatever was right until then', () => {
  const { passed, failed, notes } = checksVerdict(['  ok one', 'a: hangs: exits 3'], 2);
  assert.deepEqual([passed, failed], [0, 1]);
  assert.match(notes[0] ?? '', /ended with 2 in the middle: a: hangs/);
  assert.equal(checksVerdict([], 139).failed, 1);
  assert.equal(checksVerdict(['1 passed, 0 failed'], 1).failed, 1);
});

const END = (pass: number, fail: number, skipped: number): string[] => [
  `ℹ tests ${pass + fail + skipped}`,
  `ℹ pass ${pass}`,
  `ℹ fail ${fail}`,
  'ℹ cancelled 0',
  `ℹ skipped ${skipped}`,
];

test('a skip for want of what the lab has is a failure there, any other is told', () => {
  const output = [
    '✔ a law (1.5ms)',
    '﹣ a page is written to guest_memfd (0.2ms) # write() to guest_memfd: ESPIPE',
    '﹣ large pages (0.1ms) # there is no free 2 MiB page',
    ...END(1, 0, 2),
  ];
  const verdict = testsVerdict(output, 0, /guest_memfd/);
  assert.equal(verdict.passed, 1);
  assert.equal(verdict.failed, 1);
  assert.deepEqual(verdict.skipped, ['large pages (0.1ms) # there is no free 2 MiB page']);
  assert.match(verdict.notes[0] ?? '', /skipped in the lab: a page is written/);
});

test('tests that failed are named once, colours or not', () => {
  const output = ['\u001b[31m✖ a law (1.5ms)\u001b[39m', ...END(0, 1, 0), '✖ failing tests:', '✖ a law (1.5ms)'];
  assert.deepEqual(testsVerdict(output, 1, /x/), { passed: 0, failed: 1, skipped: [], notes: ['a law'] });
});

test('a runner that did not come to its end has failed, and one that found no test too', () => {
  assert.equal(testsVerdict(['✔ a law'], 137, /x/).failed, 1);
  assert.equal(testsVerdict(END(0, 0, 0), 0, /x/).failed, 1);
  assert.equal(testsVerdict(END(3, 0, 0), 1, /x/).failed, 1);
});

test('every line that is wanted has to be there', () => {
  assert.equal(linesVerdict(['a  yes', 'b  no'], 0, [/^a +yes/]).failed, 0);
  assert.deepEqual(linesVerdict(['b  no'], 0, [/^b +yes/]).notes, ['no line /^b +yes/']);
  assert.equal(linesVerdict(['a  yes'], 1, [/^a +yes/]).failed, 1);
});

test('without options all stages run; --only names some of them', () => {
  assert.deepEqual(parseOptions([], true).task, {
    kind: 'stages',
    names: ['kernel', 'probe', 'native', 'migrate', 'populate'],
    quick: false,
  });
  const some = parseOptions(['--quick', '--only', 'kernel, probe'], true).task;
  assert.deepEqual(some, { kind: 'stages', names: ['kernel', 'probe'], quick: true });
  assert.throws(() => parseOptions(['--only', 'kernels'], true), /there is no stage "kernels"/);
});

test('a shell, a command and the stages exclude each other', () => {
  assert.deepEqual(parseOptions(['--shell'], true).task, { kind: 'shell' });
  assert.deepEqual(parseOptions(['--exec', 'true'], true).task, { kind: 'exec', command: 'true' });
  assert.deepEqual(parseOptions(['--append', ' kvm_amd.npt=0  x '], true).kernelArguments, ['kvm_amd.npt=0', 'x']);
  assert.throws(() => parseOptions(['--shell', '--exec', 'true'], true), /do not go together/);
  assert.throws(() => parseOptions(['--quick', '--shell'], true), /do not go together/);
});
