/** What a lab says on its console: the program's own lines, the kernel's, and this room's marks (init/init.c). */

export type ConsoleLine =
  | { readonly kind: 'up' }
  /** The script has ended. `tainted` is the kernel's own word: 0 where it has nothing to complain about. */
  | { readonly kind: 'ended'; readonly code: number; readonly tainted: number }
  /** The lab could not be set up. */
  | { readonly kind: 'died'; readonly why: string }
  | { readonly kind: 'kernel'; readonly text: string; readonly trouble: boolean }
  /** Of the firmware, before the kernel is up, or of the script. */
  | { readonly kind: 'output'; readonly text: string };

/** With `printk.time=1` every line of the kernel's has its time before it. */
const KERNEL = /^\[ *\d+\.\d{6}\] /;
const TROUBLE =
  /Kernel panic|BUG:|WARNING:|Oops|general protection fault|possible (circular|recursive) locking|stack segment/;
const ENDED = /^@lab ended (\d+) tainted (\d+)$/;
const DIED = /^@lab died (.*)$/;
/** What a terminal would take as a command: the firmware clears the screen. */
// oxlint-disable-next-line no-control-regex
const ESCAPES = /\x1b(?:\[[0-9;?]*[a-zA-Z]|c)/g;

export function parseConsoleLine(raw: string): ConsoleLine {
  const text = raw.replace(/\r+$/, '').replaceAll(ESCAPES, '');
  if (text === '@lab up') return { kind: 'up' };
  const ended = ENDED.exec(text);
  if (ended) return { kind: 'ended', code: Number(ended[1]), tainted: Number(ended[2]) };
  const died = DIED.exec(text);
  if (died) return { kind: 'died', why: died[1] ?? '' };
  if (KERNEL.test(text)) return { kind: 'kernel', text, trouble: TROUBLE.test(text) };
  return { kind: 'output', text };
}

/** A program's own colours stay in the line that a terminal gets; who judges it wants the words. */
export const plain = (text: string): string => text.replaceAll(ESCAPES, '');

/** Cuts a stream into lines; what comes without an end of line is the last one's beginning. */
export class LineCutter {
  #rest = '';

  push(chunk: string): string[] {
    const lines = (this.#rest + chunk).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines;
  }

  /** At the end of the stream. */
  flush(): string[] {
    const rest = this.#rest;
    this.#rest = '';
    return rest === '' ? [] : [rest];
  }
}
