import { closeSync, lstatSync, unlinkSync } from 'node:fs';
import { binding } from './binding.ts';
import type { HandedFd, NativeUnixSocket, OwnedFd } from './binding.ts';
import { NativeError } from './errors.ts';
import { SendQueue } from './send-queue.ts';
import type { PeerCredentials } from './types.ts';

/** A VMM's handshake fits in one piece; what is longer comes in several. */
const RECEIVE_BYTES = 65_536;
/** Descriptors that one message may carry. */
export const MAX_MESSAGE_FDS = 16;
const ACCEPT_RETRY_MS = 100;

/**
 * A connected Unix stream socket that carries descriptors. Ends by itself when the peer closes or on an error; `onClose` then says
 * which. Data comes from the moment `onData` is set; so does the news of an end.
 */
export class UnixConnection {
  readonly #native: NativeUnixSocket;
  readonly #queue: SendQueue;
  readonly #into = Buffer.allocUnsafeSlow(RECEIVE_BYTES);
  readonly #fds = new Int32Array(MAX_MESSAGE_FDS + 1);
  #onData: ((data: Buffer, fds: number[]) => void) | null = null;
  #onClose: ((error: NativeError | null) => void) | null = null;
  /** Set once it has ended by itself, until `onClose` has been told. */
  #ended: { readonly error: NativeError | null } | null = null;
  #closed = false;

  private constructor(native: NativeUnixSocket) {
    this.#native = native;
    this.#queue = new SendQueue(native);
  }

  /** ECONNREFUSED: nobody listens (any more). ENOENT. EAGAIN: the listener does not keep up. */
  static connect(path: string): UnixConnection {
    return UnixConnection.adopt(binding.UnixSocket.connect(path));
  }

  /** Takes ownership of a connected socket. */
  static adopt(fd: OwnedFd | HandedFd): UnixConnection {
    return new UnixConnection(new binding.UnixSocket(fd));
  }

  /**
   * `fds` came with the first byte of `data`, are closed on exec, and belong to the callback from here on. A stream has no message
   * limits: `data` may be a part of what was sent, or more than that.
   */
  onData(callback: (data: Buffer, fds: number[]) => void): void {
    this.#onData = callback;
    if (!this.#closed) this.#watch();
  }

  /** Once, unless this side closes first: null at the end of the stream, else what went wrong. */
  onClose(callback: (error: NativeError | null) => void): void {
    this.#onClose = callback;
    this.#tellEnd();
  }

  /**
   * Sends all of `data`, at once or as soon as the peer takes it. The descriptors go with its first byte and stay the caller's:
   * they may be closed as soon as this returns. A peer that is gone is told by `onClose`.
   *
   * @throws NativeError ENOBUFS where the peer is too far behind, EBADF once closed, or of a descriptor that is not open
   */
  send(data: Uint8Array, fds: readonly number[]): void {
    if (data.length === 0) throw new RangeError('data must have a byte: descriptors cannot travel alone');
    if (fds.length > MAX_MESSAGE_FDS)
      throw new RangeError(`${fds.length} descriptors; at most ${MAX_MESSAGE_FDS} go with a message`);
    if (this.#closed) throw new NativeError('EBADF', 'sendmsg', 'sendmsg: EBADF: this connection is closed');
    this.#queue.add(data, fds);
    this.#flush();
  }

  /** Who is on the other side, as the kernel saw it when they connected (or listened). Pid 0: not in our pid namespace. */
  peer(): PeerCredentials {
    const [pid, uid, gid] = this.#native.peer();
    return { pid, uid, gid };
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Idempotent. What is still queued is dropped; `onClose` is not called. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close();
    this.#queue.clear();
  }

  #watch(): void {
    const reads = this.#onData !== null;
    const writes = !this.#queue.empty;
    this.#native.watch(reads, writes, (status, readable, writable) => this.#ready(status, readable, writable));
  }

  #ready(status: number, readable: boolean, writable: boolean): void {
    if (writable || status < 0) this.#flush();
    // An error is read like data: recvmsg says which one it is.
    if ((readable || status < 0) && !this.#closed) this.#receive();
    // libuv stops watching at an error, but the peer's last words may have been more than one read, and its end comes after them.
    if (status < 0 && !this.#closed && this.#onData !== null) this.#watch();
  }

  #flush(): void {
    if (this.#closed) return;
    try {
      const before = this.#queue.waiting;
      this.#queue.flush();
      if (this.#queue.waiting !== before && !this.#closed) this.#watch();
    } catch (error) {
      const refusal = asNativeError(error);
      this.#queue.clear();
      // The peer is gone, but its last words may still wait to be read: the reading side finds the end after them.
      if (this.#onData !== null && (refusal.code === 'EPIPE' || refusal.code === 'ECONNRESET')) this.#watch();
      else this.#end(refusal);
    }
  }

  #receive(): void {
    let got: number;
    try {
      got = this.#native.receive(this.#into, this.#fds);
    } catch (error) {
      this.#end(asNativeError(error));
      return;
    }
    if (got < 0) return;
    if (got === 0) {
      this.#end(null);
      return;
    }
    const fds = Array.from(this.#fds.subarray(1, 1 + (this.#fds[0] ?? 0)));
    // A copy: the callback may keep it, and the buffer is used again.
    const data = Buffer.from(this.#into.subarray(0, got));
    if (this.#onData === null) fds.forEach((fd) => closeSync(fd));
    else this.#onData(data, fds);
  }

  #end(error: NativeError | null): void {
    this.close();
    this.#ended = { error };
    // Not from within `send`: the caller is not done with it.
    setImmediate(() => this.#tellEnd());
  }

  #tellEnd(): void {
    if (this.#ended === null || this.#onClose === null) return;
    const { error } = this.#ended;
    this.#ended = null;
    this.#onClose(error);
  }
}

/** Accepts connections on a socket file of mode 0600. */
export class UnixListener {
  readonly #native: NativeUnixSocket;
  readonly #file: { readonly dev: number; readonly ino: number };
  readonly path: string;
  #closed = false;

  private constructor(native: NativeUnixSocket, path: string) {
    this.#native = native;
    this.path = path;
    this.#file = lstatSync(path);
  }

  /**
   * A socket file that nobody listens on any more is replaced. EADDRINUSE: somebody listens there, or it is no socket.
   * ENAMETOOLONG: more than 107 bytes.
   */
  static listen(path: string, onConnection: (connection: UnixConnection) => void): UnixListener {
    const listener = new UnixListener(new binding.UnixSocket(binding.UnixSocket.listen(path)), path);
    listener.#watch(onConnection);
    return listener;
  }

  #watch(onConnection: (connection: UnixConnection) => void): void {
    this.#native.watch(true, false, () => {
      let fd: HandedFd | null;
      try {
        fd = this.#native.accept();
      } catch {
        // Out of descriptors (EMFILE): the connection stays in the queue and the socket readable, so rest instead of spinning.
        this.#native.unwatch();
        setTimeout(() => {
          if (!this.#closed) this.#watch(onConnection);
        }, ACCEPT_RETRY_MS);
        return;
      }
      if (fd !== null) onConnection(UnixConnection.adopt(fd));
    });
  }

  /** Idempotent; removes the socket file if it is still this one. Connections live on. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close();
    try {
      const now = lstatSync(this.path);
      if (now.dev === this.#file.dev && now.ino === this.#file.ino) unlinkSync(this.path);
    } catch {
      // It is gone already, and that is what was wanted.
    }
  }
}

function asNativeError(error: unknown): NativeError {
  if (error instanceof NativeError) return error;
  throw error;
}
