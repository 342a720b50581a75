import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { z } from 'zod';
import { UserError } from './errors.ts';
import { createLogger } from './log.ts';
import { StateFolder } from './state-folder.ts';

const record = z.strictObject({ vm: z.string(), generation: z.int() });

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'pagewake-state-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

const open = (path: string, lock: (path: string) => () => void = () => () => undefined): StateFolder =>
  new StateFolder(path, { option: '--state-dir', lock, log: createLogger('test', 'silent') });

test('what one agent wrote the next one reads', (t) => {
  const path = join(folder(t), 'state');
  const before = open(path);
  before.write('web.1', { vm: 'web', generation: 7 });
  before.write('web.1', { vm: 'web', generation: 8 });
  writeFileSync(before.pathOf('web.1', 'ledger'), 'x');
  before.write('gone', { vm: 'gone', generation: 1 });
  writeFileSync(before.pathOf('gone', 'ledger'), 'x');
  before.remove('gone');
  assert.equal(statSync(path).mode & 0o777, 0o700);
  assert.equal(statSync(join(path, 'web.1.json')).mode & 0o777, 0o600);

  const after = open(path);
  assert.deepEqual(after.read(record), [{ name: 'web.1', record: { vm: 'web', generation: 8 } }]);
  assert.deepEqual(readdirSync(path).toSorted(), ['web.1.json', 'web.1.ledger']);
});

test('a record that is cut short, or lies, is set aside and takes no other with it', (t) => {
  const path = folder(t);
  const before = open(path);
  for (const name of ['cut', 'lie', 'good']) before.write(name, { vm: name, generation: 1 });
  const whole = readFileSync(join(path, 'cut.json'), 'utf8');
  writeFileSync(join(path, 'cut.json'), whole.slice(0, -9));
  writeFileSync(join(path, 'lie.json'), whole.replace('"generation":1', '"generation":"all"'));
  writeFileSync(join(path, 'half.json.new'), whole);
  assert.deepEqual(
    open(path)
      .read(record)
      .map(({ name }) => name),
    ['good'],
  );
  assert.deepEqual(readdirSync(path).toSorted(), ['cut.json.refused', 'good.json', 'lie.json.refused']);
});

test('what was written before the machine last booted is thrown away, with its files', (t) => {
  const path = folder(t);
  const before = open(path);
  before.write('old', { vm: 'old', generation: 1 });
  writeFileSync(before.pathOf('old', 'ledger'), 'x');
  const file = join(path, 'old.json');
  writeFileSync(file, readFileSync(file, 'utf8').replace(/"bootId":"[^"]*"/, '"bootId":"another"'));
  assert.deepEqual(open(path).read(record), []);
  assert.deepEqual(readdirSync(path), []);
});

test('a folder that another agent has, or that others may write, is refused by name', (t) => {
  const path = folder(t);
  const taken = (): never => {
    throw Object.assign(new Error('flock'), { code: 'EAGAIN' });
  };
  const refused = (act: () => unknown, words: RegExp): void =>
    assert.throws(act, (error) => error instanceof UserError && words.test(error.message));
  refused(() => open(path, taken), /--state-dir: another agent uses/);
  chmodSync(path, 0o777);
  refused(() => open(path), /--state-dir: .* may be written by others/);
  refused(() => open('/proc/pagewake/state'), /--state-dir: cannot use/);
  assert.equal(existsSync(join(path, 'lock')), false);
});
