/**
 * What an agent has to know after its own death: small JSON records in a folder that is its alone. Whatever was written before the machine last booted is
 * thrown away, as every guest of that time is gone; so nothing has to reach a disk, and a tmpfs is the right place.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  type Stats,
} from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { messageOf, UserError } from './errors.ts';
import type { Logger } from './log.ts';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';
const RECORD = '.json';
/** What a record is called that could not be read: kept, as a guest may hang on it. */
const REFUSED = '.refused';

const envelope = z.strictObject({ format: z.literal(1), bootId: z.string(), record: z.unknown() });

export interface StateFolderOptions {
  /** The setting that names the folder, for what is said of it. */
  readonly option: string;
  /** Takes the lock on a file, and returns what gives it back; throws `code` EAGAIN where another has it. */
  readonly lock: (path: string) => () => void;
  readonly log: Logger;
}

export class StateFolder {
  readonly #path: string;
  readonly #log: Logger;
  readonly #unlock: () => void;
  readonly #bootId = readFileSync(BOOT_ID, 'latin1').trim();

  /** @throws UserError where the folder cannot be used, or another agent uses it */
  constructor(path: string, { option, lock, log }: StateFolderOptions) {
    this.#path = path;
    this.#log = log;
    requireOwnFolder(path, option);
    try {
      this.#unlock = lock(join(path, 'lock'));
    } catch (error) {
      if ((error as { code?: string }).code === 'EAGAIN')
        throw new UserError(`${option}: another agent uses ${path}; give each a folder of its own`, 2);
      throw new UserError(`${option}: cannot use ${path}: ${messageOf(error)}`, 2, { cause: error });
    }
  }

  /** Where a file of a record's may lie that is no JSON. Goes with the record. */
  pathOf(name: string, extension: string): string {
    return join(this.#path, `${name}.${extension}`);
  }

  /** A reader sees the record as it was or as it is, and nothing between. */
  write(name: string, record: object): void {
    const path = join(this.#path, name + RECORD);
    const text = JSON.stringify({ format: 1, bootId: this.#bootId, record });
    writeFileSync(`${path}.new`, text, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  /** With every file that has its name. Idempotent. */
  remove(name: string): void {
    for (const file of this.#files()) if (stemOf(file) === name) rmSync(join(this.#path, file), { force: true });
  }

  /** What the agent before this one left: each record that is sound. Of what is not the log tells, and a copy is kept. */
  read<T>(schema: z.ZodType<T>): { readonly name: string; readonly record: T }[] {
    const found: { name: string; record: T }[] = [];
    const files = this.#files();
    for (const file of files) {
      if (!file.endsWith(RECORD)) continue;
      const name = stemOf(file);
      const record = this.#readOne(file, schema);
      if (record !== undefined) found.push({ name, record });
    }
    const kept = new Set(found.map(({ name }) => name));
    for (const file of files) {
      const keep = file === 'lock' || file.endsWith(REFUSED) || kept.has(stemOf(file));
      if (!keep) rmSync(join(this.#path, file), { force: true });
    }
    return found;
  }

  /** Another agent may have it. A process that ends does the same. */
  close(): void {
    this.#unlock();
  }

  #readOne<T>(file: string, schema: z.ZodType<T>): T | undefined {
    const path = join(this.#path, file);
    try {
      const { bootId, record } = envelope.parse(JSON.parse(readFileSync(path, 'utf8')));
      if (bootId === this.#bootId) return schema.parse(record);
      this.#log.warn({ record: file }, 'left from before the last boot, thrown away: every guest of that time is gone');
    } catch (error) {
      renameSync(path, path + REFUSED);
      this.#log.error(
        { record: path + REFUSED, error: reasonOf(error) },
        'a record cannot be read: what it is about is not taken up',
      );
    }
    return undefined;
  }

  #files(): string[] {
    return readdirSync(this.#path);
  }
}

/** A record's name holds dots; its extension holds none, but for a record that is being written or was refused. */
function stemOf(file: string): string {
  return file.replace(/(\.json\.new|\.json\.refused|\.[^.]*)$/, '');
}

function reasonOf(error: unknown): string {
  if (!(error instanceof z.ZodError)) return messageOf(error);
  const issue = error.issues[0];
  return `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not as expected'}`;
}

/**
 * Makes the folder, in one that is there. It holds what may read guests' memory, so it has to be this user's alone; one that is there already is never
 * changed, as it may be somebody else's.
 */
export function requireOwnFolder(path: string, option: string): void {
  let status: Stats;
  try {
    // Node's recursive mkdir never comes back where a file system refuses new folders (/proc).
    if (!existsSync(path)) mkdirSync(path, { mode: 0o700 });
    status = statSync(path);
  } catch (error) {
    throw new UserError(`${option}: cannot use ${path}: ${messageOf(error)}`, 2, { cause: error });
  }
  const others = (status.mode & 0o022) !== 0;
  if (others || status.uid !== process.getuid?.())
    throw new UserError(
      `${option}: ${path} ${others ? 'may be written by others' : 'belongs to another user'}; give a folder that is this user's alone (mode 0700)`,
      2,
    );
}
