import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { ErrorReason, MigrationPhase, MigrationSchema, type Migration } from '@pagewake/proto';
import { PagewakeError, UserError } from '@pagewake/agent-kit';
import { MigrationError } from '../errors.ts';
import { rateBetween, summaryOf } from '../view.ts';
import { errorLine, exitCodeOf } from './exit.ts';
import { bytes, duration, microseconds, percent } from './format.ts';
import { LiveProgress } from './live.ts';
import { migrationsTable } from './tables.ts';
import type { Terminal } from './terminal.ts';

test('numbers are short and say their unit', () => {
  assert.deepEqual([0, 1023, 1024, 1536, 10 * 1024, 2 ** 30].map(bytes), [
    '0 B',
    '1023 B',
    '1.0 KiB',
    '1.5 KiB',
    '10 KiB',
    '1.0 GiB',
  ]);
  assert.deepEqual([0, 9.94, 10, 999, 1000, 61_000].map(duration), [
    '0.0 ms',
    '9.9 ms',
    '10 ms',
    '999 ms',
    '1.0 s',
    '1 min 1 s',
  ]);
  assert.deepEqual([12.3, 999, 2500].map(microseconds), ['12 us', '999 us', '2.5 ms']);
});

test('100 % is said only of what is whole', () => {
  assert.equal(percent(999_999, 1_000_000), '99 %');
  assert.equal(percent(1_000_000, 1_000_000), '100 %');
  assert.equal(percent(0, 0), '0 %');
});

const view = (phase: MigrationPhase, byPrefetch: bigint, faults = 0n): Migration =>
  create(MigrationSchema, {
    migrationId: 'm',
    vmId: 'v',
    phase,
    progress: {
      pagesTotal: 1000n,
      pagesPresent: byPrefetch + 500n,
      pagesByPrefetch: byPrefetch,
      pagesZero: 500n,
      payloadBytes: byPrefetch * 4096n,
    },
    faults: { total: faults, stallP50Us: 120, stallP99Us: 2400 },
  });

test('rates are of what was fetched: pages known to be zero come all at once and are no rate', () => {
  const before = summaryOf(view(MigrationPhase.OPENING, 0n));
  const now = summaryOf(view(MigrationPhase.FILLING, 100n, 7n));
  assert.deepEqual(rateBetween(before, now, 500), {
    pagesPerSecond: 200,
    bytesPerSecond: 819_200,
    faultsPerSecond: 14,
  });
  assert.deepEqual(rateBetween(undefined, now, 500), { pagesPerSecond: 0, bytesPerSecond: 0, faultsPerSecond: 0 });
});

function screen(isTerminal: boolean): { readonly terminal: Terminal; readonly text: () => string } {
  let text = '';
  const terminal = {
    out: (more: string) => void (text += more),
    err: () => undefined,
    mustFinish: () => undefined,
    isTerminal,
    columns: 60,
  };
  return { terminal, text: () => text };
}

test('elsewhere than on a terminal: a line at every phase and then one a second, however many views come', () => {
  const { terminal, text } = screen(false);
  let nowMs = 0;
  const live = new LiveProgress(terminal, () => nowMs);
  for (const atMs of [0, 100, 200, 1000, 1100, 2000]) {
    nowMs = atMs;
    live.show(view(atMs < 200 ? MigrationPhase.OPENING : MigrationPhase.FILLING, BigInt(atMs / 10)));
  }
  live.end();
  const lines = text().trimEnd().split('\n');
  assert.deepEqual(
    lines.map((line) => line.split(/ {2,}/).slice(0, 3).join('|')),
    [
      'opening|50 %|500/1000 pages',
      'filling|52 %|520/1000 pages',
      // At 1000 it was not yet due, at 1100 it was.
      'filling|61 %|610/1000 pages',
      'filling|70 %|700/1000 pages',
    ],
  );
});

test('on a terminal: one line that is written over and never wider than the screen', () => {
  const { terminal, text } = screen(true);
  const live = new LiveProgress(terminal, () => 0);
  live.show(view(MigrationPhase.FILLING, 1n));
  live.show(view(MigrationPhase.FILLING, 2n));
  live.say('the end');
  const parts = text().split('\r\u001B[K');
  assert.equal(parts.length, 4);
  for (const part of parts) assert.ok(part.length < 60 && !part.slice(0, -1).includes('\n'), part);
  assert.equal(parts.at(-1), 'the end\n');
});

test('a table ends its lines where their words end', () => {
  const lines = migrationsTable([summaryOf(view(MigrationPhase.FILLING, 1n))]).split('\n');
  assert.equal(lines.length, 2);
  for (const line of lines) assert.equal(line, line.trimEnd());
  assert.match(lines[1] ?? '', /^m +v +filling +- +501\/1000 +50 % +0 +120 us +2\.4 ms +-$/);
});

test('an outcome has its exit code, and its error one line with reason, message and what to do', () => {
  const cause = new PagewakeError(ErrorReason.VMM_EXITED, 'the VMM\n  is gone');
  const cases = [
    ['failed-untouched', 1, 130],
    ['failed-source-runs', 3, 130],
    ['failed-source-paused', 1, 1],
    ['failed-guest-lost', 4, 4],
    ['failed-unknown', 1, 1],
    ['detached', 130, 130],
  ] as const;
  for (const [outcome, code, interrupted] of cases) {
    const error = new MigrationError(outcome, cause, 'do this');
    assert.equal(exitCodeOf(error, false), code, outcome);
    assert.equal(exitCodeOf(error, true), interrupted, outcome);
    assert.equal(errorLine('pagewake migrate', error), 'pagewake migrate: VMM_EXITED: the VMM is gone; do this');
  }
  assert.equal(exitCodeOf(new MigrationError('failed-source-runs', new UserError('x', 2), ''), false), 2);
  assert.equal(exitCodeOf(new TypeError('x'), false), 1);
});
