/** A thread loads and keeps code of its own: with gRPC, protobuf and schemas the bulk lane's had as much of it as the rest of the agent. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

/** Loads the lane outside of a worker, where it refuses to run once it is loaded, and says what was loaded. */
const LOADED = `
import { registerHooks } from 'node:module';
registerHooks({ load: (url, context, next) => (console.log(url), next(url, context)) });
await import(process.argv[1]).catch((error) => console.log(error.message));`;

test("the bulk lane's thread loads no package but pagewake's own", () => {
  const url = new URL('worker.ts', import.meta.url).href;
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', LOADED, url], { encoding: 'utf8' });
  const lines = stdout.trim().split('\n');
  assert.equal(lines.pop(), 'the bulk lane runs as a worker');
  assert.ok(lines.length > 40, stdout);
  // The rooms are links in node_modules, and told by where they lead.
  assert.deepEqual(
    lines.filter((loaded) => loaded.includes('/node_modules/')),
    [],
  );
});
