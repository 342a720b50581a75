/**
 * Writes to a socket that has nothing to write by handing the bytes to the kernel at once: the stream in front of a socket is made for queues, and costs a
 * fault more than the call itself. What the kernel does not take goes through the stream, and so does everything behind it.
 */
import type { Socket } from 'node:net';

/** Hands bytes to the kernel. @returns how many it took; 0: none, for whatever reason */
export type SendNow = (fd: number, bytes: Uint8Array) => number;

/** Node does not document it; where it is missing everything goes through the stream. */
interface WithHandle {
  readonly _handle?: { readonly fd?: number } | null;
}

export class StraightWriter {
  readonly #socket: Socket;
  readonly #send: SendNow | undefined;

  /** @param send left out for TLS, whose bytes are not those of the connection */
  constructor(socket: Socket, send: SendNow | undefined) {
    this.#socket = socket;
    this.#send = send;
  }

  /** As `socket.write`; `taken` may be called before it returns. */
  write(bytes: Uint8Array, taken?: () => void): boolean {
    const sent = this.#sendNow(bytes);
    if (sent === bytes.length) {
      taken?.();
      return true;
    }
    return this.#socket.write(sent === 0 ? bytes : bytes.subarray(sent), () => taken?.());
  }

  #sendNow(bytes: Uint8Array): number {
    const socket = this.#socket;
    if (this.#send === undefined || socket.connecting || !socket.writable || socket.writableLength > 0) return 0;
    const fd = (socket as unknown as WithHandle)._handle?.fd ?? -1;
    return fd < 0 ? 0 : this.#send(fd, bytes);
  }
}
