/** `info ramblock`: the one place where QEMU says which backends are guest RAM, and in what pages. */

export interface RamBlock {
  readonly pageSizeBytes: number;
}

const UNITS: Readonly<Record<string, number>> = { B: 1, KiB: 1 << 10, MiB: 1 << 20, GiB: 1 << 30 };

/** By the id of the backend; a backend that nothing uses has a block without a name, which is left out. */
export function readRamBlocks(text: string): ReadonlyMap<string, RamBlock> {
  const blocks = new Map<string, RamBlock>();
  for (const line of text.split('\n')) {
    const match = /^\s*(\S+)\s+([\d.]+) (B|KiB|MiB|GiB)\s+0x/.exec(line);
    const [, name = '', size, unit = ''] = match ?? [];
    if (match === null) continue;
    // With x-use-canonical-path-for-ramblock-id=on it is the whole path.
    blocks.set(name.replace(/^\/objects\//, ''), { pageSizeBytes: Number(size) * (UNITS[unit] ?? 1) });
  }
  return blocks;
}
