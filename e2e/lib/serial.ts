/** The serial console of the guest in e2e/qemu/guest: its lines with the time at which each arrived here, and commands to it. */
import { EventEmitter, once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { JsonLine } from './processes.ts';

const WAIT_MS = 60_000;

export interface SerialLine {
  /** When its last byte arrived: milliseconds of the wall clock, as QMP's events have it, from a clock that does not jump. */
  readonly atMs: number;
  /** `{text}` where it is not JSON: the kernel's words, or half a line. */
  readonly line: JsonLine;
}

export const hostNowMs = (): number => performance.timeOrigin + performance.now();

function parse(text: string): JsonLine {
  try {
    return JSON.parse(text) as JsonLine;
  } catch {
    return { text };
  }
}

export class Serial extends EventEmitter<{ line: [line: SerialLine] }> {
  readonly #socket: Socket;
  readonly #lines: SerialLine[] = [];
  #partial = '';

  private constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => this.#onData(chunk));
    socket.on('error', () => undefined);
  }

  static async connect(path: string): Promise<Serial> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new Serial(socket);
  }

  get lines(): readonly SerialLine[] {
    return this.#lines;
  }

  /** What came after the last line's end. A guest that moves in the middle of a line ends it on the other host. */
  get partial(): string {
    return this.#partial;
  }

  /** The first line from now on, or among all with `past`, that satisfies. */
  async waitFor(
    what: string,
    satisfies: (line: JsonLine) => boolean,
    { past = true, timeoutMs = WAIT_MS }: { readonly past?: boolean; readonly timeoutMs?: number } = {},
  ): Promise<SerialLine> {
    const { promise, resolve, reject } = Promise.withResolvers<SerialLine>();
    const look = (line: SerialLine): void => {
      if (satisfies(line.line)) resolve(line);
    };
    const last = (): string => JSON.stringify(this.#lines.slice(-5).map((l) => l.line));
    const closed = (): void => reject(new Error(`the guest is gone before ${what}; its last lines: ${last()}`));
    this.on('line', look);
    this.#socket.on('close', closed);
    const found = past ? this.#lines.find((line) => satisfies(line.line)) : undefined;
    if (found) resolve(found);
    const timer = setTimeout(
      () => reject(new Error(`the guest: no ${what} within ${timeoutMs} ms; its last lines: ${last()}`)),
      timeoutMs,
    );
    return promise.finally(() => {
      clearTimeout(timer);
      this.off('line', look);
      this.#socket.off('close', closed);
    });
  }

  /** The next heartbeat from now on: the guest runs. */
  nextHeartbeat(): Promise<SerialLine> {
    return this.waitFor('heartbeat', (line) => typeof line['hb'] === 'number', { past: false });
  }

  /** Has the guest look at every page of its memory once. */
  async verify(): Promise<{ readonly pages: number; readonly wrong: number; readonly disk: number }> {
    const answer = this.waitFor('answer to verify', (line) => line['event'] === 'verified', { past: false });
    this.#socket.write('verify\n');
    const { line } = await answer;
    return { pages: Number(line['pages']), wrong: Number(line['wrongEver']), disk: Number(line['disk']) };
  }

  close(): void {
    this.#socket.destroy();
  }

  #onData(chunk: string): void {
    const atMs = hostNowMs();
    const parts = (this.#partial + chunk).split('\n');
    this.#partial = parts.pop() ?? '';
    for (const part of parts) {
      const text = part.replace(/\r$/, '');
      if (text === '') continue;
      const line = { atMs, line: parse(text) };
      this.#lines.push(line);
      this.emit('line', line);
    }
  }
}
