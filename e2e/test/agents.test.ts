/** Agents as processes: how they start, and that nothing of them is left. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { PAGEWAKE, startDestAgent } from '../lib/agents.ts';
import { LOOPBACK, temporaryFolder } from '../lib/migration.ts';

/** Where the command runs under this, it hands over to a newer one. */
const OLD_NODE = ['/usr/bin/node', '/usr/local/bin/node'].find((path) => {
  if (!existsSync(path)) return false;
  const { stdout } = spawnSync(path, ['--version'], { encoding: 'utf8' });
  return Number(/^v(\d+)/.exec(stdout)?.[1] ?? 99) < 24;
});

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

test(
  'an agent whose starter is killed with SIGKILL ends as well, and gives its port back',
  { skip: OLD_NODE ? false : 'no Node older than 24 is installed, so the command starts nothing on another' },
  async (t) => {
    const starter = spawn(OLD_NODE ?? '', [PAGEWAKE, 'serve-source', '--listen', '127.0.0.1:0'], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    t.after(() => starter.kill('SIGKILL'));
    let port = 0;
    for await (const line of createInterface({ input: starter.stderr })) {
      port = Number(/"address":"127\.0\.0\.1:(\d+)"/.exec(line)?.[1] ?? 0);
      if (port > 0) break;
    }
    assert.ok(await answers(port));
    starter.kill('SIGKILL');
    for (let waited = 0; await answers(port); waited++) {
      assert.ok(waited < 200, 'the agent is still there');
      await sleep(50);
    }
  },
);

test('a folder that cannot be made is said at once', () => {
  const { status, stderr } = spawnSync(
    process.execPath,
    [PAGEWAKE, 'serve-dest', '--listen', '127.0.0.1:0', '--vmm-socket-dir', '/proc/pagewake'],
    { encoding: 'utf8', timeout: 20_000, killSignal: 'SIGKILL' },
  );
  assert.equal(status, 2);
  assert.match(stderr, /--vmm-socket-dir: cannot use \/proc\/pagewake/);
});

test('two destination agents never have one state folder: the second says so and ends', async (t) => {
  const folder = temporaryFolder(t);
  const state = ['--state-dir', join(folder, 'state')];
  const first = await startDestAgent(LOOPBACK, join(folder, 'a'), { flags: state });
  t.after(() => first.program.stop());
  await assert.rejects(
    startDestAgent(LOOPBACK, join(folder, 'b'), { flags: state }),
    /exited with 2 .*--state-dir: another agent uses .*state; give each a folder of its own/s,
  );
});
