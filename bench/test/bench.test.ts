/** The benchmark as a program: that it runs and says everything. What it says of speed is nobody's to assert. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Program, ROOT } from '../../e2e/lib/processes.ts';
import { BARS, BAR_NAMES } from '../lib/bars.ts';
import { buildFloor, LOOPBACK, startDestinationProgram } from '../lib/floor.ts';
import { figureOf } from '../lib/rows.ts';
import { SECTIONS } from '../lib/sections.ts';
import { choicesOf, choicesTable } from '../populate/choices.ts';
import { populate, rowsOf } from '../populate/populate.ts';

const MAIN = join(ROOT, 'bench/main.ts');
const BUDGET_MS = 60_000;
/** All sections, on a machine that has other tests to run. */
const ALL_MS = 240_000;

buildFloor();

/** Found by doing it: the smallest program that needs a userfaultfd on shared memory. */
async function whyNoFaults(): Promise<string | false> {
  try {
    await populate(2, [4]);
    return false;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
const skip = await whyNoFaults();

function temporaryFile(t: TestContext, name: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'pw-bench-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, name);
}

interface Report {
  readonly ratios: Readonly<Record<string, number>>;
  readonly bars: Readonly<Record<string, { readonly ratio: number; readonly bar: number; readonly met: boolean }>>;
  readonly sections: Readonly<Record<string, unknown>>;
}

test(
  'the smallest run goes through every section, says what was reached, and writes it for programs',
  {
    skip,
    timeout: ALL_MS,
  },
  async (t) => {
    const json = temporaryFile(t, 'figures.json');
    const bench = new Program('bench', LOOPBACK, [process.execPath, MAIN, '--smoke', '--json', json]);
    t.after(() => bench.stop());
    const code = await bench.exited;
    assert.equal(code, 0, bench.stderr);
    const printed = bench.lines.map((line) => String(line['text'])).join('\n');
    const report = JSON.parse(readFileSync(json, 'utf8')) as Report;
    assert.deepEqual(Object.keys(report.sections).toSorted(), SECTIONS.map(({ name }) => name).toSorted());
    const here = new Set<string>(SECTIONS.map(({ name }) => name));
    for (const name of BAR_NAMES.filter((bar) => here.has(BARS[bar].section))) {
      assert.match(printed, new RegExp(`^${name} .* (met|missed|not measured)$`, 'm'));
      // Neither guests of GiB nor sixteen at once are in a smoke run.
      if (BARS[name].section === 'growth' || name === 'many16') continue;
      const ratio = report.ratios[name] ?? Number.NaN;
      assert.ok(Number.isFinite(ratio) && ratio >= 0, `${name}: ${ratio}`);
      assert.equal(report.bars[name]?.bar, BARS[name].bar);
    }
  },
);

test('a section that does not exist is refused by name, and those that do are told', () => {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, '--only', 'stalls,speed'], { encoding: 'utf8' });
  assert.equal(status, 2);
  assert.match(stderr, /--only speed: give some of stalls, bulk/);
});

test('an argument that does not exist ends with the usage and code 2', () => {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, '--fast'], { encoding: 'utf8' });
  assert.equal(status, 2);
  assert.match(stderr, /--fast.*\n[^]*usage: npm run bench/);
});

for (const { what, args, says } of [
  { what: 'a walk without a rate', args: ['64', 'floor', '1', 'walk:10'], says: /walk:10: give NAME:MS/ },
  {
    what: 'a page count that is no power of two',
    args: ['65', 'floor', '1', 'walk:10:1:0'],
    says: /PAGES: must be a power/,
  },
  { what: 'a filler that is neither', args: ['64', 'magic', '1', 'walk:10:1:0'], says: /give `floor PORT` or `agent/ },
]) {
  test(`the destination program refuses ${what}`, { skip, timeout: BUDGET_MS }, async (t) => {
    const program = startDestinationProgram(args);
    t.after(() => program.stop());
    assert.equal(await program.exited, 1);
    assert.match(program.stderr, says);
  });
}

test('a page with the wrong content ends the measurement', { skip, timeout: BUDGET_MS }, async (t) => {
  // A page server that is fast because it sends zeros.
  const server = createServer((socket) => {
    socket.on('data', (requests) => socket.write(Buffer.alloc((requests.length / 8) * 4096)));
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const program = startDestinationProgram(['64', 'floor', String(port), 'walk:10:1:0']);
  t.after(() => program.stop());
  await program.waitFor('memory that is served', (line) => line['event'] === 'ready');
  program.signal('SIGUSR1');
  assert.equal(await program.exited, 1);
  assert.match(program.stderr, /WRONG PAGE: page \d+ begins with 0{16}, expected /);
});

test('a median is the middle of an odd number of runs and the mean of the middle two of an even one', () => {
  assert.equal(figureOf([9, 1, 5]).median, 5);
  assert.equal(figureOf([9, 1, 5, 7]).median, 6);
  assert.throws(() => figureOf([]), /a median of no runs/);
});

test('a call is set against COPY into the same kind of file, and against nothing where the kernel has no COPY there', () => {
  const took = (call: 'copy' | 'write' | 'guestWrite' | 'guestCopy', ms: number) => ({ call, pieceBytes: 4096, ms });
  const [stock] = rowsOf([took('copy', 100), took('write', 80), took('guestWrite', 30)]);
  assert.deepEqual(stock?.overCopy, { copy: 1, write: 0.8 });
  const [patched] = rowsOf([took('copy', 100), took('guestCopy', 60), took('guestWrite', 30)]);
  assert.deepEqual(patched?.overCopy, { copy: 1, guestCopy: 1, guestWrite: 0.5 });
});

test('the policy’s call is set against what was measured: it wins, is as good, or there is a reason', () => {
  const took = (call: 'copy' | 'write' | 'writeContinue', ms: number) => ({ call, pieceBytes: 4096, ms });
  const rows = rowsOf([took('copy', 100), took('write', 80), took('writeContinue', 90)]);
  const stage2 = choicesOf(rows).find(({ tier, waits }) => tier === 'memfd' && waits === 'stage2-trap');
  assert.deepEqual([stage2?.chosen, stage2?.winner], ['write', 'write']);
  const userSpace = choicesOf(rows).find(({ tier, waits }) => tier === 'memfd' && waits === 'user-space');
  assert.deepEqual([userSpace?.chosen, userSpace?.winner], ['copy', 'writeContinue']);
  assert.match(choicesTable(rows), /user-space .* write\(\)\+CONTINUE wins by 11 %, but: /);
  assert.match(choicesTable(rows), /stage2-trap .* it wins by 25 %/);
  // Nobody is told of a kind of memory that nothing was measured on.
  assert.doesNotMatch(choicesTable(rows), /guest-memfd/);
});
