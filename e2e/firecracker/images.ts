/** Snapshots as sources: what Firecracker's users have too. Made once, they serve any number of migrations. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { TESTVMM } from '../lib/vmm.ts';

export interface Image {
  readonly path: string;
  readonly regions: number;
  readonly pageSizeBytes: number;
  remove(): void;
}

/** @param flags as `testvmm snapshot --help` has them */
export function makeImage(
  folder: string,
  name: string,
  { regions = 1, pageSizeBytes = 4096, flags = [] as readonly string[] } = {},
): Image {
  const path = join(folder, name);
  const shape = ['--regions', String(regions), '--page-size', String(pageSizeBytes)];
  const made = spawnSync(TESTVMM, ['snapshot', '--out', path, '--quiet-heartbeats', ...shape, ...flags], {
    encoding: 'utf8',
  });
  if (made.status !== 0) throw new Error(`testvmm snapshot: ${made.stderr}`);
  const remove = (): void => [path, `${path}.state`].forEach((file) => rmSync(file, { force: true }));
  return { path, regions, pageSizeBytes, remove };
}
