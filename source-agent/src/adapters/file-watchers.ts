/** Looks through all processes for those that have a file mapped with a userfaultfd. */
import { readdir } from 'node:fs/promises';
import { mentions, watchedIn } from './proc-maps.ts';

export interface Watcher {
  readonly pid: number;
  /** Of the file, as `markOf` gives it. */
  readonly mark: string;
}

type Answer =
  | { readonly kind: 'watches'; readonly mark: string }
  /** It does not, or is gone. */
  | { readonly kind: 'no' }
  /** The process is another user's, and we may not see into it. */
  | { readonly kind: 'hidden' }
  | { readonly kind: 'silent' };

export type Warn = (about: Readonly<Record<string, number>>, text: string) => void;

/** Asked at a time. Each takes a thread of the pool, which reads of other VMs' memory need too. */
const ABREAST = 2;
/** Where a process's memory is locked for good nobody sees its maps, and the thread that asks is gone for as long. */
const ANSWER_MS = 5_000;
/** It is counted in so many pieces: a process that stood still itself (stopped, or on a host that slept) has lost one of them, not found everybody silent. */
const ANSWER_PIECES = 10;
const MOST_SILENT = 2;

export class FileWatchers {
  readonly #warn: Warn;
  readonly #proc: string;
  readonly #answerMs: number;
  /** Asked, and they have not answered yet. */
  readonly #silent = new Set<number>();
  #saidHidden = false;

  constructor(warn: Warn, proc = '/proc', answerMs = ANSWER_MS) {
    this.#warn = warn;
    this.#proc = proc;
    this.#answerMs = answerMs;
  }

  /**
   * The first process that is found to watch one of the files. Rejects where one that has such a file mapped does not tell, and where too many do
   * not answer. Processes that cannot be looked into are taken for not watching, with a warning.
   */
  async find(marks: readonly string[]): Promise<Watcher | undefined> {
    const pids = (await readdir(this.#proc)).filter((name) => /^\d+$/.test(name)).map(Number);
    let hidden = 0;
    let found: Watcher | undefined;
    const queue = pids.values();
    const askOn = async (): Promise<void> => {
      for (const pid of queue) {
        if (found !== undefined) return;
        const answer = await this.#ask(pid, marks);
        if (answer.kind === 'hidden') hidden++;
        else if (answer.kind === 'watches') found = { pid, mark: answer.mark };
      }
    };
    // Both have ended before it is said how it went: nothing goes on behind the caller's back.
    const ends = await Promise.allSettled(Array.from({ length: ABREAST }, askOn));
    if (found !== undefined) return found;
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
    // A proc that hides processes hides the first one too.
    this.#sayHidden(hidden, pids.includes(1));
    return undefined;
  }

  async #ask(pid: number, marks: readonly string[]): Promise<Answer> {
    if (this.#silent.has(pid)) return { kind: 'silent' };
    if (this.#silent.size >= MOST_SILENT)
      throw new Error(
        `the kernel does not show the maps of processes ${[...this.#silent].join(', ')}: are they stuck?`,
      );
    const folder = `${this.#proc}/${String(pid)}`;
    const maps = await this.#inTime(pid, hasMark(folder, marks));
    if (maps !== 'yes') return { kind: maps };
    // It takes its time, as it ought to: this process is one that counts.
    const [mark] = (await watchedIn(folder, marks)) ?? [];
    return mark === undefined ? { kind: 'no' } : { kind: 'watches', mark };
  }

  async #inTime<T>(pid: number, asked: Promise<T>): Promise<T | 'silent'> {
    const { promise: late, resolve } = Promise.withResolvers<'silent'>();
    let pieces = 0;
    const timer = setInterval(() => {
      if (++pieces === ANSWER_PIECES) resolve('silent');
    }, this.#answerMs / ANSWER_PIECES);
    const first = await Promise.race([asked, late]);
    clearInterval(timer);
    if (first !== 'silent') return first;
    this.#silent.add(pid);
    void asked.finally(() => this.#silent.delete(pid));
    this.#warn(
      { pid },
      'does not show its maps: whether it receives a guest in memory that is moved on now is not known',
    );
    return first;
  }

  #sayHidden(processes: number, allListed: boolean): void {
    if (this.#saidHidden || (processes === 0 && allListed)) return;
    this.#saidHidden = true;
    this.#warn(
      { processes },
      'processes cannot be looked into (they are other users’ and CAP_SYS_PTRACE is missing, or /proc hides them): whether one of them ' +
        'receives a guest in memory that is moved on is not known',
    );
  }
}

/** Never rejects: a process of which this cannot be told is none of ours, or gone. */
async function hasMark(folder: string, marks: readonly string[]): Promise<'yes' | 'no' | 'hidden'> {
  try {
    return (await mentions(folder, marks)) ? 'yes' : 'no';
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === 'EACCES' || code === 'EPERM' ? 'hidden' : 'no';
  }
}
