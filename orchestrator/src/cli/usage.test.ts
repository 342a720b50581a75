import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { PAGEWAKE } from '../../test/programs.ts';
import { main } from './main.ts';
import type { Terminal } from './terminal.ts';

const BUDGET = { timeout: 30_000 };

async function run(...argv: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  const said = { out: '', err: '' };
  const terminal: Terminal = {
    out: (text) => void (said.out += text),
    err: (text) => void (said.err += text),
    mustFinish: () => undefined,
    isTerminal: false,
    columns: 80,
  };
  return { code: await main(argv, terminal), ...said };
}

const AGENTS = ['--source', '127.0.0.1:1', '--destination', '127.0.0.1:1'];
const VMMS = ['--source-vmm', 'unix:/nowhere/a', '--destination-vmm', 'unix:/nowhere/b'];

const WRONG: readonly (readonly [readonly string[], RegExp])[] = [
  [['bogus'], /^pagewake: unknown command 'bogus'/],
  [['--bogus'], /^pagewake: unknown option '--bogus'/],
  [['migrate', '--bogus'], /^pagewake migrate: unknown option '--bogus'/],
  [['migrate', 'extra', ...VMMS], /^pagewake migrate: too many arguments/],
  [['migrate', ...AGENTS], /--destination-vmm is needed/],
  [['migrate', ...VMMS], /--source is needed \(or PAGEWAKE_SOURCE\)/],
  [['migrate', ...VMMS, '--source', '127.0.0.1:1'], /--destination is needed \(or PAGEWAKE_DESTINATION\)/],
  [['migrate', ...VMMS, ...AGENTS, '--mode', 'fast'], /'fast' is invalid\. Allowed choices are auto, post-copy, eager/],
  [['migrate', ...VMMS, ...AGENTS, '--source', 'nonsense'], /"nonsense" is not an address; give host:port/],
  [['migrate', ...VMMS, ...AGENTS, '--source-from-destination', 'x'], /sourceFromDestination: "x" is not an address/],
  [
    ['migrate', ...VMMS, ...AGENTS, '--source', '192.0.2.1:7701'],
    /refusing plaintext to 192\.0\.2\.1:7701: give --tls-ca/,
  ],
  [['migrate', ...VMMS, ...AGENTS, '--tls-ca', '/nowhere/ca.pem'], /--tls-ca: cannot \w+ \/nowhere\/ca\.pem: ENOENT/],
  [
    ['migrate', ...AGENTS, '--source-vmm', '/a', '--destination-vmm', 'unix:/b'],
    /--source-vmm: "\/a" is not .* unix:PATH/,
  ],
  [['migrate', ...AGENTS, ...VMMS, '--snapshot', '/a'], /give either --source-vmm .* or --snapshot/],
  [['migrate', ...AGENTS, '--destination-vmm', 'unix:/b', '--snapshot', '/a', '--vm', 'v'], /--snapshot needs --state/],
  [
    ['migrate', ...AGENTS, '--destination-vmm', 'unix:/b', '--snapshot', '/a', '--state', '/s'],
    /--snapshot needs --vm/,
  ],
  [['migrate', ...AGENTS, ...VMMS, '--regions', '0'], /'0' is invalid\. a whole number/],
  [['migrate', 'qemu', ...AGENTS], /^pagewake migrate qemu: --source-qmp is needed/],
  [['migrate', 'qemu', ...AGENTS, '--source-qmp', 'unix:/a'], /--dest-qmp is needed/],
  [
    ['migrate', 'qemu', ...AGENTS, '--source-qmp', '/a', '--dest-qmp', 'unix:/b'],
    /--source-qmp: "\/a" is not a QMP address/,
  ],
  [['migrate', 'qemu', '--source-qmp', 'unix:/a', '--dest-qmp', 'unix:/b'], /--destination is needed/],
  [['completion', 'tcsh'], /'tcsh' is invalid.*Allowed choices are bash, zsh, fish/],
  [['list'], /give --destination, --source, or both/],
  [['status'], /give --destination, --source, or both/],
  [['watch'], /missing required argument 'migration'/],
  [['watch', 'x'], /--destination is needed/],
  [['cancel', 'x'], /--destination is needed/],
  [['release', 'x'], /--source is needed/],
];

for (const [argv, says] of WRONG) {
  test(`wrong usage is exit 2 and one line: ${argv.join(' ')}`, BUDGET, async () => {
    const { code, out, err } = await run(...argv);
    assert.match(err, says);
    assert.equal(code, 2);
    assert.equal(out, '');
    assert.match(err, /^pagewake[^\n]*\n$/);
  });
}

test('an agent that does not answer is exit 1 and one line that names it', BUDGET, async () => {
  for (const argv of [
    ['status', '--source', '127.0.0.1:1'],
    ['status', '--destination', '127.0.0.1:1'],
    ['pause', 'x', '--destination', '127.0.0.1:1'],
    ['watch', 'x', '--destination', '127.0.0.1:1'],
    ['release', 'x', '--source', '127.0.0.1:1'],
  ]) {
    const { code, err } = await run(...argv);
    assert.equal(code, 1, argv.join(' '));
    assert.match(err, /^pagewake \w+: .*the (source|destination) agent at 127\.0\.0\.1:1 does not answer[^\n]*\n$/);
    assert.doesNotMatch(err, /\n\s+at /);
  }
});

test('every command shows an example in its help, and the root the exit codes', BUDGET, async () => {
  const root = await run('--help');
  assert.equal(root.code, 0);
  for (const code of [0, 1, 2, 3, 4, 130, 141]) assert.match(root.out, new RegExp(`^  ${String(code)} +\\w`, 'm'));
  const commands = [...root.out.matchAll(/^ {2}([a-z-]+) (?:\[options\] )?/gm)].map((match) => match[1] ?? '');
  for (const name of [
    'migrate',
    'status',
    'watch',
    'pause',
    'resume',
    'cancel',
    'release',
    'probe',
    'list',
    'completion',
  ]) {
    assert.ok(commands.includes(name), name);
    const help = await run(name, '--help');
    assert.equal(help.code, 0);
    assert.match(help.out, new RegExp(`Examples?:\\n  \\$ pagewake ${name}`));
  }
});

test('no arguments: the help, on standard error, and exit 2', BUDGET, async () => {
  const { code, out, err } = await run();
  assert.equal(code, 2);
  assert.equal(out, '');
  assert.match(err, /^Usage: pagewake/);
});

function olderNode(): { readonly path: string } | { readonly why: string } {
  for (const path of ['/usr/bin/node', '/usr/local/bin/node']) {
    if (!existsSync(path)) continue;
    const { stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' });
    const major = Number(/^v(\d+)/.exec(stdout)?.[1]);
    if (major >= 18 && major < 24) return { path };
  }
  return { why: 'this machine has no Node between 18 and 23 to start pagewake with' };
}

test(
  'under a Node that cannot run TypeScript the one from npm takes over, exit code and all',
  {
    ...BUDGET,
    skip: 'why' in olderNode() ? (olderNode() as { why: string }).why : false,
  },
  () => {
    const node = olderNode();
    assert.ok('path' in node);
    const version = spawnSync(node.path, [PAGEWAKE, '--version'], { encoding: 'utf8' });
    assert.equal(version.stdout, '0.1.0\n', version.stderr);
    const wrong = spawnSync(node.path, [PAGEWAKE, 'serve-source', '--listen', 'nonsense'], { encoding: 'utf8' });
    assert.equal(wrong.status, 2);
    assert.match(wrong.stderr, /"nonsense" is not an address/);
  },
);

test('help of an agent is the agent’s own, whichever way it is asked for', BUDGET, () => {
  for (const argv of [
    ['serve-source', '--help'],
    ['help', 'serve-dest'],
  ]) {
    const { stdout, status } = spawnSync(process.execPath, [PAGEWAKE, ...argv], { encoding: 'utf8' });
    assert.equal(status, 0);
    assert.match(stdout, /^Usage: pagewake serve-(source|dest) \[options\]/);
    assert.match(stdout, /PAGEWAKE_LISTEN/);
  }
});
