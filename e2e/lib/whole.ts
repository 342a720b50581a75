/** What must hold of every migration that has come to its end, whatever its kind. */
import assert from 'node:assert/strict';
import type { MigrationSummary } from '@pagewake/orchestrator';
import type { JsonLine } from './processes.ts';

export interface Ended {
  readonly summary: MigrationSummary;
  readonly stats: JsonLine;
  readonly verified: JsonLine;
  readonly result: { readonly dataPages: number; readonly zeroPages: number };
}

/** @param losses of the link that were provoked */
export function assertWhole({ summary, stats, verified, result }: Ended, losses: 'none' | 'some' = 'none'): void {
  assert.equal(summary.phase, 'completed');
  assert.equal(summary.error, null);
  assert.equal(verified['wrong'], 0);
  assert.equal(stats['wrong'], 0);
  const { pages } = summary;
  assert.equal(pages.present, pages.total);
  assert.equal(pages.total, verified['pages']);
  // Every page of data came exactly once, but for those that the guest gave back on the way.
  const arrived = pages.byFault + pages.byPrefetch;
  assert.ok(arrived <= result.dataPages, `${arrived} pages arrived, the source has ${result.dataPages}`);
  assert.ok(arrived >= result.dataPages - pages.removed - summary.faults.removedEvents * 64);
  assert.equal(pages.zero, result.zeroPages);
  assert.equal(summary.badFrames, 0);
  if (losses === 'none') assert.equal(summary.linkLosses, 0);
  else assert.ok(summary.linkLosses > 0);
}
