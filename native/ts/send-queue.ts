import { closeSync } from 'node:fs';
import { binding } from './binding.ts';
import type { NativeUnixSocket } from './binding.ts';
import { NativeError } from './errors.ts';

/** A peer that is this far behind does not read at all. */
const MAX_QUEUED_BYTES = 8 * 1024 * 1024;
const NO_FDS = new Int32Array(0);

interface Message {
  readonly data: Uint8Array;
  offset: number;
  /** Our own copies until the first byte is out: the caller may have closed the originals by then. */
  fds: Int32Array;
}

/** What a socket could not take yet. */
export class SendQueue {
  readonly #socket: NativeUnixSocket;
  readonly #messages: Message[] = [];
  #bytes = 0;
  /** The socket's buffer is full: wait until it is writable. */
  waiting = false;

  constructor(socket: NativeUnixSocket) {
    this.#socket = socket;
  }

  get empty(): boolean {
    return this.#messages.length === 0;
  }

  add(data: Uint8Array, fds: readonly number[]): void {
    if (this.#bytes + data.length > MAX_QUEUED_BYTES) {
      throw new NativeError(
        'ENOBUFS',
        'sendmsg',
        `sendmsg: ENOBUFS: ${this.#bytes} bytes wait for a peer that does not read`,
      );
    }
    const copies: number[] = [];
    try {
      for (const fd of fds) copies.push(binding.duplicateDescriptor(fd));
    } catch (error) {
      copies.forEach((fd) => closeSync(fd));
      throw error;
    }
    // Copied: the caller may use its buffer again.
    this.#messages.push({
      data: Uint8Array.from(data),
      offset: 0,
      fds: copies.length === 0 ? NO_FDS : Int32Array.from(copies),
    });
    this.#bytes += data.length;
  }

  /** Sends what the socket takes. Throws what `sendmsg` said. */
  flush(): void {
    for (let message = this.#messages[0]; message !== undefined; message = this.#messages[0]) {
      const sent = this.#socket.send(message.data, message.offset, message.data.length - message.offset, message.fds);
      this.waiting = sent < 0;
      if (this.waiting) return;
      closeAll(message);
      message.offset += sent;
      this.#bytes -= sent;
      if (message.offset === message.data.length) this.#messages.shift();
    }
    this.waiting = false;
  }

  clear(): void {
    for (const message of this.#messages) closeAll(message);
    this.#messages.length = 0;
    this.#bytes = 0;
  }
}

function closeAll(message: Message): void {
  for (const fd of message.fds) closeSync(fd);
  message.fds = NO_FDS;
}
