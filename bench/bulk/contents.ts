/** What memory is filled with, and what there is to gain on each. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { BarName } from '../lib/bars.ts';
import { BUILD, type Content } from '../lib/floor.ts';

export interface Kind {
  readonly content: Content;
  readonly what: string;
  readonly bar?: BarName;
}

/** Holes come behind zeros: the floor sends the same for both, and is measured once. */
export const KINDS: readonly Kind[] = [
  { content: 'random', what: 'random', bar: 'bulkRandom' },
  { content: 'text', what: 'text-like', bar: 'bulkText' },
  { content: 'zeros', what: '80 % zero', bar: 'bulkZeroHeavy' },
  { content: 'holes', what: '80 % holes' },
];

export interface Described {
  /** 0 to 1. */
  readonly zeroShare: number;
  /** Of the pages that are not zero, in pieces of 256 KiB at LZ4's default speed. */
  readonly lz4Ratio: number;
}

const SAMPLE_PAGES = 16_384;

export function describe(content: Content): Described {
  const { status, stdout, stderr } = spawnSync(join(BUILD, 'describe'), [content, String(SAMPLE_PAGES)], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`describe ${content}: ${stderr}`);
  const line = JSON.parse(stdout) as { pages: number; zeroPages: number; lz4Ratio: number };
  return { zeroShare: line.zeroPages / line.pages, lz4Ratio: line.lz4Ratio };
}
