/** The control socket of a test VMM: one command a line, one JSON line back. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { budget } from './budget.ts';
import type { JsonLine } from './processes.ts';

const ANSWER_MS = budget(60_000);

export class Control {
  readonly #socket: Socket;
  readonly #waiting: { resolve(line: JsonLine): void; reject(error: Error): void }[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    createInterface({ input: socket }).on('line', (text) =>
      this.#waiting.shift()?.resolve(JSON.parse(text) as JsonLine),
    );
    socket.on('error', (error) => this.#rejectAll(error));
    socket.on('close', () => this.#rejectAll(new Error('the VMM closed its control socket')));
  }

  static async connect(path: string): Promise<Control> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new Control(socket);
  }

  /** @throws Error with the VMM's own words where it refuses */
  async send(command: string, timeoutMs = ANSWER_MS): Promise<JsonLine> {
    const { promise, resolve, reject } = Promise.withResolvers<JsonLine>();
    this.#waiting.push({ resolve, reject });
    const timer = setTimeout(() => reject(new Error(`${command}: no answer within ${timeoutMs} ms`)), timeoutMs);
    this.#socket.write(`${command}\n`);
    const line = await promise.finally(() => clearTimeout(timer));
    if (line['ok'] !== true) throw new Error(`${command}: ${String(line['error'])}`);
    return line;
  }

  close(): void {
    this.#socket.destroy();
  }

  #rejectAll(error: Error): void {
    for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
  }
}
