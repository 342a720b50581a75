import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { z } from 'zod';
import { commonFields, ConfigError, loadConfig, option, serverFields, type ProgramSpec } from './config.ts';

const schema = z.object({
  ...commonFields,
  ...serverFields,
  listen: option(z.string().default('127.0.0.1:7701'), 'where to listen', 'address'),
  windowPages: option(z.number().int().min(1).max(1024).default(64), 'pages a range', 'pages'),
  stateDir: option(z.string(), 'where sockets live', 'dir'),
});
const spec: ProgramSpec<typeof schema> = {
  name: 'pagewake test',
  summary: 'Tests things.',
  schema,
  examples: ['pagewake test --state-dir /run/x'],
};

function configFile(t: TestContext, content: string): string {
  const dir = mkdtempSync(join(tmpdir(), 'pagewake-config-'));
  t.after(() => rmSync(dir, { recursive: true }));
  const path = join(dir, 'config.json');
  writeFileSync(path, content);
  return path;
}

function load(argv: readonly string[], env: Record<string, string> = {}): z.output<typeof schema> {
  const loaded = loadConfig(spec, argv, env);
  assert(loaded.kind === 'config');
  return loaded.config;
}

test('a flag beats the environment, which beats the file, which beats the default', (t) => {
  const file = configFile(
    t,
    JSON.stringify({ stateDir: '/file', logLevel: 'error', listen: 'file:1', windowPages: 7 }),
  );
  const env = { PAGEWAKE_LOG_LEVEL: 'warn', PAGEWAKE_LISTEN: 'env:2', PAGEWAKE_CONFIG: file };
  const config = load(['--listen', 'flag:3'], env);
  assert.deepEqual(
    [config.stateDir, config.windowPages, config.logLevel, config.listen, config.insecurePlaintext],
    ['/file', 7, 'warn', 'flag:3', false],
  );
});

test('numbers and booleans are read from text; an empty variable is not set; --no- takes back', () => {
  const env = { PAGEWAKE_WINDOW_PAGES: '9', PAGEWAKE_INSECURE_PLAINTEXT: '1', PAGEWAKE_LISTEN: '' };
  const config = load(['--state-dir', 'd'], env);
  assert.deepEqual([config.windowPages, config.insecurePlaintext, config.listen], [9, true, '127.0.0.1:7701']);
  assert.equal(load(['--state-dir', 'd', '--no-insecure-plaintext'], env).insecurePlaintext, false);
});

const WRONG: readonly [string, readonly string[], Record<string, string>, string | undefined, RegExp][] = [
  [
    'flag, enum',
    ['--log-level', 'loud'],
    {},
    undefined,
    /^--log-level: "loud" is not allowed; allowed: trace, debug, info/,
  ],
  [
    'variable, number',
    [],
    { PAGEWAKE_WINDOW_PAGES: 'many' },
    undefined,
    /^environment variable PAGEWAKE_WINDOW_PAGES: "many" is not/,
  ],
  ['flag, range', ['--window-pages', '5000'], {}, undefined, /^--window-pages: 5000 is not allowed; .*1024/],
  [
    'variable, boolean',
    [],
    { PAGEWAKE_INSECURE_PLAINTEXT: 'maybe' },
    undefined,
    /"maybe" is not allowed; allowed: true, false/,
  ],
  ['file, type', [], {}, '{"windowPages":"7"}', /^config file .*config\.json, key "windowPages": "7" is not allowed/],
  ['file, unknown key', [], {}, '{"colour":1}', /unknown key "colour"; allowed: logLevel, /],
  ['file, no JSON', [], {}, '{', /config file .*config\.json: cannot be read as JSON/],
  ['file, no object', [], {}, '[]', /must hold one JSON object/],
  ['file, absent', ['--config', '/nowhere/c.json'], {}, undefined, /config file \/nowhere\/c\.json: cannot be read/],
  ['unknown flag', ['--colour'], {}, undefined, /unknown option '--colour'.*see pagewake test --help/],
];

for (const [name, argv, env, file, message] of WRONG) {
  test(`a wrong value is told with its origin and what is allowed: ${name}`, (t) => {
    const withFile = file === undefined ? env : { ...env, PAGEWAKE_CONFIG: configFile(t, file) };
    assert.throws(
      () => load(['--state-dir', 'd', ...argv], withFile),
      (error: unknown) => {
        assert(error instanceof ConfigError);
        assert.equal(error.exitCode, 2);
        assert.match(error.message, message);
        assert.equal(error.message.split('\n').length, 1);
        return true;
      },
    );
  });
}

test('a needed value that nobody gave is named, and every wrong value has a line of its own', () => {
  assert.throws(() => load([]), /^ConfigError: --state-dir is needed: where sockets live$/);
  assert.throws(
    () => load(['--log-level', 'x', '--window-pages', '0']),
    (error: Error) => error.message.split('\n').length === 3,
  );
});

test('--help shows every flag with its variable, and an example', () => {
  const loaded = loadConfig(spec, ['--help'], {});
  assert(loaded.kind === 'help');
  assert.match(loaded.text, /--log-level <level>\s+how much to log/);
  assert.match(loaded.text, /PAGEWAKE_WINDOW_PAGES/);
  assert.match(loaded.text, /\$ pagewake test --state-dir \/run\/x/);
});
