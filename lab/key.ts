/** What a built kernel is known by: everything that goes into it. */
import { createHash } from 'node:crypto';

export interface Ingredients {
  /** Of Debian's package with the source. */
  readonly version: string;
  readonly config: string;
  readonly patches: readonly Patch[];
}

export interface Patch {
  readonly name: string;
  readonly text: string;
}

/** Lengths go before texts, so that no byte can move from one to the next unseen. */
export function kernelKey({ version, config, patches }: Ingredients): string {
  const hash = createHash('sha256');
  for (const part of [version, config, ...patches.flatMap(({ name, text }) => [name, text])])
    hash.update(`${Buffer.byteLength(part)}:`).update(part);
  return hash.digest('hex').slice(0, 16);
}

/** How many of the patches that a tree has can stay: those before the first that differs. */
export function commonPrefix(applied: readonly Patch[], wanted: readonly Patch[]): number {
  const differs = applied.findIndex(({ text }, index) => wanted[index]?.text !== text);
  return differs < 0 ? applied.length : differs;
}
