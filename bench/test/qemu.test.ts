/** `npm run bench:qemu`: what it makes of figures, and that it runs. What it says of speed is nobody's to assert. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Program, ROOT } from '../../e2e/lib/processes.ts';
import { LOOPBACK } from '../../e2e/lib/migration.ts';
import { whyNoQemuMigration } from '../../e2e/lib/qemu-migration.ts';
import { chartSvg } from '../lib/chart.ts';
import { compare, MEASURES, reportOf, type Report } from '../qemu/compare.ts';
import { partsOf } from '../qemu/blackout.ts';
import { cpuSecondsOf, threadTimesOf } from '../qemu/cpu.ts';
import { figure } from '../qemu/figure.ts';
import { SCENARIOS, WAY_NAMES, WAY_TITLES, type Scenario, type WayName } from '../qemu/plan.ts';
import type { Run } from '../qemu/run.ts';
import { comparisonTable } from '../qemu/table.ts';

const MAIN = join(ROOT, 'bench/qemu/main.ts');
const BUDGET_MS = 100_000;

const [plain] = SCENARIOS as [Scenario];

function runOf(way: WayName, wholeMs: number, values: Partial<Run> = {}): Run {
  return {
    ...{ scenario: plain.name, way, wholeMs, downtimeMs: 10, longestGapMs: 400, back90Ms: 4000, isBack: true },
    ...{ toStopMs: 50, vcpuStallMs: 2000, ownStall: { how: 'test' }, wireBytes: 6e8, cpuS: 2, cpuBeforeS: 1 },
    ...{ cpuByProcessS: {}, guestCpuS: 3, steps: [], verifiedPages: 1000, wrongPages: 0 },
    ...values,
  };
}

const FASTER: Partial<Run> = { longestGapMs: 200, back90Ms: 1600 };
const native = [runOf('qemu', 5000), runOf('qemu', 4000), runOf('qemu', 9000), runOf('qemuPreempt', 6000)];

test('a ratio is the median of pagewake over the better of the two medians of QEMU', () => {
  const { ratios, misses } = compare(plain, [...native, runOf('pagewake', 2500, FASTER)]);
  assert.deepEqual(ratios, { whole: 0.5, gap: 0.5, back90: 0.4, downtime: 1 });
  assert.deepEqual(misses, [], 'a bar that is just reached is met');
});

test('a bar that is missed is named with how far, and the downtime has one in milliseconds as well', () => {
  const slow = runOf('pagewake', 5000, { ...FASTER, downtimeMs: 31 });
  assert.deepEqual(compare(plain, [...native, slow]).misses, [
    'whole 1.00 of at most 0.5',
    'downtime 3.10 of at most 1.5',
    'downtime 31.0 ms of at most 30 ms',
  ]);
});

test('with only one side there are no ratios, and nothing is called met or missed', () => {
  const comparison = compare(plain, native);
  assert.equal(comparison.ratios, undefined);
  assert.match(comparisonTable(comparison), /nothing to compare; 0 wrong pages/);
});

test('wrong pages of any way are counted, and the downtime of the report is the longest of pagewake’s medians', () => {
  const other = SCENARIOS[1] ?? plain;
  const runs = [
    runOf('qemu', 1, { wrongPages: 1 }),
    runOf('pagewake', 1, { downtimeMs: 12, wrongPages: 2 }),
    runOf('pagewake', 1, { downtimeMs: 14, scenario: other.name }),
  ];
  const { wrongPages, downtimeMs } = reportOf([compare(plain, runs), compare(other, runs)]);
  assert.deepEqual({ wrongPages, downtimeMs }, { wrongPages: 3, downtimeMs: 14 });
});

test('CPU time is read right of a process whose name has spaces and brackets', () => {
  const fields = ['S', ...Array.from({ length: 10 }, () => '7'), '250', '130', '9', '9'];
  assert.equal(cpuSecondsOf(`4711 (CPU 0) (TCG) ${fields.join(' ')}\n`), 3.8);
  assert.deepEqual(threadTimesOf('2500000 1000000 12\n'), { ranMs: 2.5, queuedMs: 1 });
});

test('a bar is as high as its value, and text cannot break out of its place', () => {
  const bars = [1, 2, 4].map((value) => ({ value, low: value, high: value }));
  const panel = { title: 'a < b & "c"', unit: 's', groups: [{ label: 'one', bars }] };
  const svg = chartSvg({ title: 't', subtitle: 's', series: ['x', 'y', 'z'], panels: [panel] });
  const heights = [...svg.matchAll(/height="([\d.]+)" class="s\d"\/>/g)].map(([, height]) => Number(height));
  const [one = 0, two = 0, four = 0] = heights.slice(-3);
  assert.ok(Math.abs(two / one - 2) < 0.01 && Math.abs(four / one - 4) < 0.01, String(heights));
  assert.ok(svg.includes('a &lt; b &amp; &quot;c&quot;'));
});

test('the chart has every way, and stays a chart where one is missing or all are zero', () => {
  for (const runs of [native, [...native, runOf('pagewake', 2500)], [runOf('qemu', 0)]]) {
    const svg = figure([compare(plain, runs)]);
    for (const way of WAY_NAMES) assert.ok(svg.includes(WAY_TITLES[way]));
    assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
  }
});

for (const { args, says } of [
  { args: ['--only', 'fast'], says: /--only fast: give one of plain, gbitRandom, gbitCompressible/ },
  { args: ['--quick', '--smoke'], says: /give --quick or --smoke, not both/ },
  { args: ['--fast'], says: /--fast/ },
])
  test(`${args.join(' ')} ends with the usage and code 2`, () => {
    const { status, stderr } = spawnSync(process.execPath, [MAIN, ...args], { encoding: 'utf8' });
    assert.equal(status, 2);
    assert.match(stderr, says);
    assert.match(stderr, /usage: npm run bench:qemu/);
  });

test('a blackout falls into parts that make up all of it; without its events there are none', () => {
  const event = (name: string, atMs: number, status?: string) => ({
    name,
    atMs,
    data: status === undefined ? {} : { status },
  });
  const source = [
    event('MIGRATION', 90, 'active'),
    event('STOP', 100),
    event('MIGRATION', 101, 'pre-switchover'),
    event('MIGRATION', 106, 'device'),
    event('MIGRATION', 107, 'completed'),
  ];
  const run = { scenario: 'plain', way: 'pagewake', events: { source, destination: [event('RESUME', 115)] } };
  assert.deepEqual(partsOf(run), {
    'RAM is final': 1,
    'the state is sent': 5,
    'the source is through': 1,
    'the guest runs': 8,
    downtime: 15,
  });
  assert.equal(partsOf({ ...run, events: { source, destination: [] } }), undefined);
});

test(
  'the smallest run migrates both ways, prints every row, and writes figures and chart',
  { skip: whyNoQemuMigration() ?? false, timeout: BUDGET_MS },
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'pw-bench-'));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const [json, chart] = [join(folder, 'figures.json'), join(folder, 'chart.svg')];
    const command = [process.execPath, MAIN, '--smoke', '--json', json, '--chart', chart];
    const bench = new Program('bench:qemu', LOOPBACK, command);
    t.after(() => bench.stop());
    assert.equal(await bench.exited, 0, bench.stderr);
    const printed = bench.lines.map((line) => String(line['text'])).join('\n');
    for (const { what } of MEASURES) assert.match(printed, new RegExp(`^${what} .*\\d`, 'm'));
    const report = JSON.parse(readFileSync(json, 'utf8')) as Report & { readonly runs: readonly Run[] };
    assert.equal(report.wrongPages, 0);
    assert.ok(report.runs.every(({ verifiedPages }) => verifiedPages > 0));
    for (const ratio of Object.values(report.ratios.plain ?? {})) assert.ok(Number.isFinite(ratio) && ratio > 0);
    assert.deepEqual(Object.keys(report.ratios.plain ?? {}).toSorted(), ['back90', 'downtime', 'gap', 'whole']);
    assert.match(readFileSync(chart, 'utf8'), /^<svg [^]*<\/svg>\n$/);
  },
);
