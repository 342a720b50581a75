/** Whole migrations through the command: real agents, a real guest, every page looked at afterwards. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  LARGE,
  pagewake,
  setStage,
  startDestination,
  startDestinationVmm,
  startHeld,
  startSource,
  takeSnapshot,
  temporaryFolder,
  untilItWorks,
  whyNoMigrations,
} from '../../test/programs.ts';

const WHOLE = { timeout: 60_000, skip: whyNoMigrations() ?? false };

interface JsonLine {
  readonly type: string;
  readonly phase?: string;
  readonly step?: string;
}
const jsonLines = (text: string): JsonLine[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as JsonLine);

test('migrate moves a running guest: it goes on, no page is wrong, and the source is released', WHOLE, async (t) => {
  const stage = await setStage(t);
  const { code, stdout, stderr } = await pagewake(t, [...stage.args, '--json']);
  assert.equal(code, 0, stderr);
  const lines = jsonLines(stdout);
  assert.deepEqual(
    lines.filter(({ type }) => type === 'phase').map(({ phase }) => phase),
    ['blackout', 'filling', 'completed'],
  );
  const steps = new Set(lines.filter(({ type }) => type === 'step').map(({ step }) => step));
  const expected = ['check', 'register', 'start', 'pause', 'scan', 'save', 'start-destination', 'release'];
  assert.deepEqual(steps, new Set(expected));
  const result = lines.at(-1) as unknown as {
    readonly type: string;
    readonly downtimeMs: number;
    readonly downtimeClock: string;
    readonly totalMs: number;
    readonly dataPages: number;
    readonly zeroPages: number;
    readonly migration: {
      readonly phase: string;
      readonly pages: { readonly total: number; readonly present: number };
    };
  };
  assert.equal(result.type, 'result');
  assert.equal(result.migration.phase, 'completed');
  assert.equal(result.migration.pages.present, result.migration.pages.total);
  assert.equal(result.dataPages + result.zeroPages, (64 * 1024) / 4);
  assert.equal(result.downtimeClock, 'vmm');
  assert.ok(result.downtimeMs > 0 && result.downtimeMs < result.totalMs);

  await untilItWorks(stage.to);
  assert.equal((await stage.to.ask('verify'))['wrong'], 0);
  assert.equal((await stage.from.ask('stats'))['state'], 'paused');
  const status = await pagewake(t, ['status', '--source', stage.source.address, '--json']);
  assert.deepEqual(JSON.parse(status.stdout), { vms: [] });
});

test('without a terminal progress comes in plain lines, the last one saying what it came to', WHOLE, async (t) => {
  const stage = await setStage(t);
  const { code, stdout, stderr } = await pagewake(t, [...stage.args, '--vm', 'testvmm', '--id', 'moving']);
  assert.equal(code, 0, stderr);
  assert.ok(!stdout.includes('\u001B') && !stdout.includes('\r'));
  const lines = stdout.trim().split('\n');
  assert.equal(lines[0], 'migration moving of VM testvmm');
  assert.match(stdout, /^completed {2,}100 % {2}16384\/16384 pages/m);
  assert.match(
    lines.at(-1) ?? '',
    /^done: downtime \S+ m?s, whole after .* 16384 pages: \d+ by fault, \d+ by prefetch/,
  );

  const address = ['--destination', stage.destination.address];
  const table = await pagewake(t, ['status', ...address]);
  assert.match(table.stdout, /^moving {2,}testvmm {2,}completed {2,}post-copy {2,}16384\/16384 {2,}100 %/m);
  const one = await pagewake(t, ['status', 'mov', ...address]);
  assert.match(one.stdout, /^mode +post-copy \(missing pages are trapped by userfaultfd\)$/m);
  const watched = await pagewake(t, ['watch', 'moving', ...address]);
  assert.equal(watched.code, 0);
  assert.match(watched.stdout, /^completed/);
});

test('eager: the guest runs on the destination only once every page is there', WHOLE, async (t) => {
  const stage = await setStage(t);
  const { code, stdout, stderr } = await pagewake(t, [...stage.args, '--mode', 'eager', '--json']);
  assert.equal(code, 0, stderr);
  const lines = jsonLines(stdout) as readonly {
    readonly type: string;
    readonly phase?: string;
    readonly migration?: { readonly mode: string; readonly faults: { readonly total: number } };
  }[];
  const last = lines.at(-1)?.migration;
  assert.equal(last?.mode, 'eager');
  assert.equal(last?.faults.total, 0);
  assert.equal((await stage.to.ask('verify'))['wrong'], 0);
});

test('a snapshot in files is a source as good as a guest', WHOLE, async (t) => {
  const folder = temporaryFolder(t);
  const [image, source, destination, to] = await Promise.all([
    takeSnapshot(t, folder),
    startSource(t),
    startDestination(t, folder),
    startDestinationVmm(t, folder),
  ]);
  const agents = ['--source', source.address, '--destination', destination.address];
  const files = ['--snapshot', image, '--state', `${image}.state`, '--destination-vmm', `unix:${to.socket}`];
  const { code, stderr } = await pagewake(t, ['migrate', '--vm', 'testvmm', ...agents, ...files]);
  assert.equal(code, 0, stderr);
  await untilItWorks(to);
  assert.equal((await to.ask('verify'))['wrong'], 0);
});

test('pause holds prefetch back and resume lets it go on', WHOLE, async (t) => {
  const stage = await setStage(t, LARGE);
  const address = ['--destination', stage.destination.address];
  const migration = await startHeld(t, stage);
  await migration.line(/"type":"progress".*"phase":"paused"/);
  const refused = await pagewake(t, ['cancel', 'held', ...address]);
  assert.equal(refused.code, 1);
  assert.match(
    refused.stderr,
    /^pagewake cancel: WRONG_PHASE: the guest may be running .*; pagewake cancel --force does it all the same$/m,
  );
  for (const [command, phase] of [
    ['resume', 'filling'],
    ['pause', 'paused'],
    ['resume', 'filling'],
  ] as const) {
    const { stdout, stderr } = await pagewake(t, [command, 'held', ...address]);
    assert.equal(stdout, `held: ${phase}\n`, stderr);
  }
  const { code, stderr } = await migration.exited;
  assert.equal(code, 0, stderr);
  assert.equal((await stage.to.ask('verify'))['wrong'], 0);
});
