/** The Dockerfiles, as far as they can be judged without an engine: what they say, and whether what they take is enough to run. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { copiesOf, lastOf, readDockerfile, type Dockerfile, type Stage } from './dockerfile.ts';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const HEALTH_BUDGET_MS = 30_000;
const IMAGES = [
  { agent: 'source-agent', command: 'serve-source', runtime: 'node-ptrace' },
  { agent: 'dest-agent', command: 'serve-dest', runtime: 'node' },
] as const;

interface Manifest {
  readonly workspaces: readonly string[];
  readonly dependencies: Readonly<Record<string, string>>;
}

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;

function finalStage({ stages }: Dockerfile): Stage {
  const stage = stages.at(-1);
  assert.ok(stage);
  return stage;
}

for (const { agent, command, runtime } of IMAGES) {
  const dockerfile = readDockerfile(join(ROOT, 'deploy', `${agent}.Dockerfile`));
  const final = finalStage(dockerfile);

  test(`${agent}: every file that is copied exists, and every stage is one before`, () => {
    const known: string[] = [];
    for (const stage of dockerfile.stages) {
      for (const { from, sources } of copiesOf(stage)) {
        if (from !== undefined) assert.ok(known.includes(from), `--from=${from} is no stage before`);
        else for (const source of sources) assert.ok(existsSync(join(ROOT, source)), `${source} does not exist`);
      }
      if (stage.name !== undefined) known.push(stage.name);
    }
  });

  test(`${agent}: compilers stay in a stage of their own, and the last one runs as an ordinary user`, () => {
    assert.ok(dockerfile.stages.length > 1);
    assert.match(final.base, /-slim$/);
    assert.match(lastOf(final, 'USER') ?? '', /^[1-9]\d*:[1-9]\d*$/);
    const run = final.instructions.filter(({ name }) => name === 'RUN').map(({ text }) => text);
    for (const text of run) assert.doesNotMatch(text, /g\+\+|make|npm|curl|wget/);
  });

  test(`${agent}: the Node of the image is the one of package.json`, () => {
    assert.equal(dockerfile.args.get('NODE_VERSION'), manifest.dependencies['node']);
    for (const { base } of dockerfile.stages) {
      const own = dockerfile.stages.some(({ name }) => name === base);
      assert.ok(own || base.startsWith(`node:${manifest.dependencies['node']}-bookworm`), base);
    }
  });

  test(`${agent}: npm sees the package.json of every workspace`, () => {
    const copied = dockerfile.stages.flatMap(copiesOf).flatMap(({ sources }) => sources);
    for (const workspace of manifest.workspaces) assert.ok(copied.includes(`${workspace}/package.json`), workspace);
  });

  test(`${agent}: no secret goes into a layer, and nothing comes from an address`, () => {
    for (const { name, text } of dockerfile.stages.flatMap(({ instructions }) => instructions)) {
      assert.notEqual(name, 'ADD');
      if (name === 'ENV' || name === 'ARG') assert.doesNotMatch(text, /token|secret|password|_key/i);
    }
  });

  test(`${agent}: health is asked by gRPC, and the entry is the product's own command`, () => {
    assert.match(lastOf(final, 'HEALTHCHECK') ?? '', /CMD \["node", "\/app\/deploy\/healthcheck\.mjs"\]$/);
    const entry: unknown = JSON.parse(lastOf(final, 'ENTRYPOINT') ?? 'null');
    assert.deepEqual(entry, [runtime, '/app/orchestrator/bin/pagewake.mjs', command]);
  });

  test(
    `${agent}: what the last stage takes is enough to start, to be found healthy, and to stop`,
    { timeout: 60_000 },
    async () => {
      const folder = mkdtempSync(join(tmpdir(), 'pagewake-image-'));
      const app = join(folder, 'app');
      try {
        lay(final, app);
        const port = await freePort();
        // What Docker would give: the image's own variables and nothing of ours.
        const env = {
          PATH: process.env['PATH'],
          PAGEWAKE_LISTEN: `127.0.0.1:${port}`,
          PAGEWAKE_VMM_SOCKET_DIR: join(folder, 'run'),
          PAGEWAKE_STATE_DIR: join(folder, 'state'),
          PAGEWAKE_LOG_LEVEL: 'warn',
        };
        const child = spawn(process.execPath, [join(app, 'orchestrator/bin/pagewake.mjs'), command], {
          env,
          stdio: ['ignore', 'ignore', 'pipe'],
        });
        let said = '';
        child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
        try {
          await untilHealthy(child, join(app, 'deploy/healthcheck.mjs'), env, () => said);
        } finally {
          child.kill('SIGTERM');
        }
        const code = child.exitCode ?? (await once(child, 'exit'))[0];
        assert.equal(code, 0, said);
        assert.equal(health(join(app, 'deploy/healthcheck.mjs'), env).status, 1);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
  );
}

/** Lays out the files of a last stage as Docker would. */
function lay(stage: Stage, app: string): void {
  mkdirSync(app, { recursive: true });
  for (const { sources, target } of copiesOf(stage)) {
    for (const source of sources) {
      const path = source.replace(/^\/app\//, '');
      if (path === 'node_modules') layModules(app);
      else {
        const from = join(ROOT, path);
        const to = target.endsWith('/') ? join(app, target, basename(path)) : join(app, target);
        cpSync(from, to, {
          recursive: true,
          filter: (file) => statSync(file).isDirectory() || !file.endsWith('.test.ts'),
        });
      }
    }
  }
}

/** Links in place of copies, except that our own packages are those of the image. */
function layModules(app: string): void {
  const modules = join(app, 'node_modules');
  mkdirSync(join(modules, '@pagewake'), { recursive: true });
  for (const name of readdirSync(join(ROOT, 'node_modules')))
    if (name !== '@pagewake' && !name.startsWith('.'))
      symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  for (const workspace of manifest.workspaces) symlinkSync(join(app, workspace), join(modules, '@pagewake', workspace));
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

function health(script: string, env: NodeJS.ProcessEnv) {
  return spawnSync(process.execPath, [script], { env, encoding: 'utf8' });
}

async function untilHealthy(
  agent: ChildProcess,
  script: string,
  env: NodeJS.ProcessEnv,
  said: () => string,
): Promise<void> {
  const untilMs = Date.now() + HEALTH_BUDGET_MS;
  let last = '';
  while (Date.now() < untilMs) {
    assert.equal(agent.exitCode, null, `the agent ended: ${said()}`);
    const { status, stderr } = health(script, env);
    if (status === 0) return;
    last = stderr;
    await delay(100);
  }
  assert.fail(`not healthy within ${HEALTH_BUDGET_MS} ms: ${last}${said()}`);
}
