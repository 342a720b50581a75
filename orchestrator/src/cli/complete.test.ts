/** Completion as a shell asks for it; with bash, by bash itself. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { PAGEWAKE, temporaryFolder } from '../../test/programs.ts';
import { main } from './main.ts';

const BUDGET = { timeout: 30_000 };

async function run(...argv: readonly string[]): Promise<string> {
  let out = '';
  const terminal = {
    out: (text: string) => void (out += text),
    err: () => undefined,
    mustFinish: () => undefined,
    isTerminal: false,
    columns: 80,
  };
  assert.equal(await main(argv, terminal), 0);
  return out;
}

/** Candidates for the last of the words. */
async function complete(
  ...words: readonly string[]
): Promise<{ readonly names: readonly string[]; readonly files: boolean }> {
  const lines = (await run('complete', '--', ...words)).trimEnd().split('\n');
  return { names: lines.slice(0, -1).map((line) => line.split('\t')[0] ?? ''), files: lines.at(-1) === ':0' };
}

test('commands, subcommands, options and their values are offered where they may stand', BUDGET, async () => {
  assert.deepEqual((await complete('mig')).names, ['migrate']);
  assert.deepEqual((await complete('migrate', 'q')).names, ['qemu']);
  assert.deepEqual((await complete('migrate', 'qemu', '--source-q')).names, ['--source-qmp']);
  assert.deepEqual((await complete('migrate', '--mode', '')).names, ['auto', 'post-copy', 'eager']);
  assert.deepEqual((await complete('migrate', '--mode=e')).names, ['--mode=eager']);
  assert.deepEqual((await complete('completion', 'b')).names, ['bash']);
  const all = await complete('');
  for (const name of ['migrate', 'status', 'list', 'serve-source', 'completion'])
    assert.ok(all.names.includes(name), name);
  assert.ok(!all.names.includes('complete'));
});

test('file names are an answer where a value is a file, and nowhere else', BUDGET, async () => {
  assert.deepEqual(await complete('status', '--tls-ca', ''), { names: [], files: true });
  assert.deepEqual(await complete('status', '--source', ''), { names: [], files: false });
});

for (const shell of ['bash', 'zsh', 'fish']) {
  test(`the script for ${shell} asks \`pagewake complete\``, BUDGET, async (t) => {
    const text = await run('completion', shell);
    assert.match(text, /pagewake complete -- /);
    const parsed = spawnSync(shell, ['-n'], { input: text, encoding: 'utf8' });
    if (parsed.error) return t.skip(`${shell} is not installed`);
    assert.equal(parsed.status, 0, parsed.stderr);
  });
}

test('bash completes with it, also where it was sourced before, and another script of its kind', BUDGET, async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'pagewake'), `#!/bin/sh\nexec '${process.execPath}' '${PAGEWAKE}' "$@"\n`);
  chmodSync(join(folder, 'pagewake'), 0o755);
  writeFileSync(join(folder, 'script'), await run('completion', 'bash'));
  const asks = `
    readonly ShellCompDirectiveError=1
    set -e; source '${join(folder, 'script')}'; source '${join(folder, 'script')}'; set +e
    COMP_WORDS=(pagewake migrate qemu --source-q); COMP_CWORD=3; COMP_LINE='pagewake migrate qemu --source-q'; COMP_POINT=\${#COMP_LINE}
    function=$(complete -p pagewake | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    "$function"
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr, error } = spawnSync('bash', ['--norc', '-c', asks], {
    encoding: 'utf8',
    env: { ...process.env, PATH: [folder, process.env['PATH']].join(delimiter) },
  });
  if (error) return t.skip('bash is not installed');
  assert.doesNotMatch(stderr, /readonly/);
  assert.match(stdout.trim(), /^--source-qmp/, stderr);
});
