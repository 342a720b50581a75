/** Notices the end of a process that is no child of ours, e.g. of a VMM that closed its channel. */
import { readFileSync } from 'node:fs';

const LOOK_AGAIN_MS = 250;

export class ProcessEnd {
  readonly #timer: NodeJS.Timeout;

  /**
   * Neither is called before the constructor returns. `onStillThere`: once, if it outlives the first look.
   * @param began when the process that is meant began; default: the one that has this pid now
   */
  constructor(pid: number, onGone: () => void, onStillThere: () => void, began = beganAt(pid)) {
    let looks = 0;
    // Not once: a process that is being killed closes its sockets before it is gone.
    this.#timer = setInterval(() => {
      if (began === undefined || beganAt(pid) !== began) {
        this.stop();
        onGone();
      } else if (++looks === 1) onStillThere();
    }, LOOK_AGAIN_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/**
 * When the process began, in the kernel's ticks, so that a number that was given to another process since is told apart. Undefined: it
 * is gone, or a zombie, which has no memory any more.
 */
export function beganAt(pid: number): string | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // proc_pid_stat(5): the name is in parentheses and may hold anything; state is field 3, starttime field 22.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}
