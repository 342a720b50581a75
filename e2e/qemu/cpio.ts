/** The archive that a kernel unpacks as its first root, made without tools. */

export interface Entry {
  readonly path: string;
  readonly mode: number;
  readonly content?: Uint8Array;
}

export const DIRECTORY = 0o040755;
export const EXECUTABLE = 0o100755;
export const FILE = 0o100644;

const padded = (length: number): Uint8Array => new Uint8Array((4 - (length % 4)) % 4);

/** The kernel's "newc" archive: thirteen numbers of eight hex digits, the name, the content, each part padded to four bytes. */
export function cpio(entries: readonly Entry[]): Buffer {
  const parts: Uint8Array[] = [];
  const add = ({ path, mode, content = new Uint8Array() }: Entry, inode: number): void => {
    const name = Buffer.from(`${path}\0`);
    const links = 1;
    const numbers = [inode, mode, 0, 0, links, 0, content.length, 0, 0, 0, 0, name.length, 0];
    const header = Buffer.from(`070701${numbers.map((n) => n.toString(16).padStart(8, '0')).join('')}`);
    parts.push(header, name, padded(header.length + name.length), content, padded(content.length));
  };
  for (const [index, entry] of entries.entries()) add(entry, index + 1);
  add({ path: 'TRAILER!!!', mode: 0 }, 0);
  return Buffer.concat(parts);
}
