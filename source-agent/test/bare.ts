/** A bare connection of the demand lane as a destination has it. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf';
import { MESSAGE_PREFIX_BYTES, MessageReader, putMessagePrefix } from '@pagewake/agent-kit';
import { FaultsRequestSchema, FaultsResponseSchema, type FaultsResponse } from '@pagewake/proto';

const MAX_BYTES = 8 * 1024 * 1024;

export class BareConnection {
  readonly socket: Socket;
  readonly #answers: FaultsResponse[] = [];
  #arrived: () => void = () => undefined;
  #closed = false;

  private constructor(socket: Socket) {
    this.socket = socket;
    const reader = new MessageReader(MAX_BYTES, (message) => {
      this.#answers.push(fromBinary(FaultsResponseSchema, Uint8Array.from(message)));
      this.#arrived();
    });
    socket.on('data', (chunk: Buffer) => reader.push(chunk));
    socket.on('close', () => {
      this.#closed = true;
      this.#arrived();
    });
    socket.on('error', () => undefined);
  }

  static async open(t: TestContext, port: number): Promise<BareConnection> {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    return new BareConnection(socket);
  }

  ask(request: MessageInitShape<typeof FaultsRequestSchema>): void {
    const message = toBinary(FaultsRequestSchema, create(FaultsRequestSchema, request));
    const framed = Buffer.alloc(MESSAGE_PREFIX_BYTES + message.length);
    framed.set(message, MESSAGE_PREFIX_BYTES);
    putMessagePrefix(framed, MESSAGE_PREFIX_BYTES, message.length);
    this.socket.write(framed);
  }

  /** Undefined: the connection is closed. */
  async next(): Promise<FaultsResponse | undefined> {
    while (this.#answers.length === 0 && !this.#closed) await new Promise<void>((resolve) => (this.#arrived = resolve));
    return this.#answers.shift();
  }
}
