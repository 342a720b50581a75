/** Two guests' RAM files, page by page. */
import { closeSync, openSync, readSync } from 'node:fs';

const PAGE_BYTES = 4096;
const CHUNK_BYTES = 1 << 20;

/** Pages that differ. Both guests have to be paused. */
export function differingPages(one: string, other: string): number {
  const files = [openSync(one, 'r'), openSync(other, 'r')] as const;
  const chunks = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)] as const;
  let differing = 0;
  try {
    for (let at = 0; ; at += CHUNK_BYTES) {
      const [read, alsoRead] = files.map((fd, side) =>
        readSync(fd, chunks[side] ?? Buffer.alloc(0), 0, CHUNK_BYTES, at),
      );
      if (read !== alsoRead || read === undefined) throw new Error(`${one} and ${other} are not of one size`);
      if (read === 0) return differing;
      if (chunks[0].equals(chunks[1])) continue;
      for (let page = 0; page < read; page += PAGE_BYTES)
        if (chunks[0].compare(chunks[1], page, page + PAGE_BYTES, page, page + PAGE_BYTES) !== 0) differing++;
    }
  } finally {
    for (const fd of files) closeSync(fd);
  }
}
